"""The one error a user ever sees: what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input. The command line prints the message as it is and exits with code 2."""


class UserErrors(UserError):
    """Several pieces of bad input, found in one pass and reported together."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages
