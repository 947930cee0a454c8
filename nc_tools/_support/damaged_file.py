"""The error for a file that cannot be used as it is."""


class DamagedFileError(ValueError):
    """A file of a run is damaged: cut, overwritten, or no regular file. The message names it and says what to do.

    It is an error of the file, not of the program: a command shows its message without a traceback.
    """
