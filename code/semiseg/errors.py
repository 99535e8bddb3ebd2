"""The one error a user ever sees: what is wrong, where, and what to do."""

import errno

REMEDIES = {
    errno.ENOSPC: "free some space, and run the command again",
    errno.EDQUOT: "free some of your quota, and run the command again",
    errno.EROFS: "choose another --out",
    errno.EACCES: "change its permissions, or choose another path",
}


class UserError(Exception):
    """Bad input. The command line prints the message as it is and exits with code 2."""


class UserErrors(UserError):
    """Several pieces of bad input, found in one pass and reported together."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


def told(error: OSError, otherwise: str) -> str:
    """What the system refused, and the remedy; `otherwise` is that of all that is not known here."""
    return f"{error.filename or 'a file'}: {error.strerror}; {REMEDIES.get(error.errno or 0, otherwise)}"
