"""All that can go wrong, one class per exit code of the command line.

    DlkitError                1   a bug in dlkit: nothing below fits
      UsageError              2   a flag, a name or a recipe
      PartialError            3   some inputs failed, the rest were answered
      DataError               4   an image, a data set, its classes
      ModelFileError          5   a model or checkpoint file
      VerificationError       6   a checksum, an archive, export parity, reproduction
      StorageError            7   disk, permission, network
      DivergedError           8   training diverged
      OutOfMemoryError        9   memory exhausted
      WorkerLostError        10   a loader worker or a rank died
      BusyError              11   the run is in use by another process
      GateError              12   a gate was not met (--fail-under)
      StoppedError  129/130/143   SIGHUP, SIGINT or SIGTERM, after saving

A message is one line: what, where, why, and what to do next. Deep code raises a short one; the public function that
knows more adds its context and raises the same class again.
"""

from __future__ import annotations

# What a parser may raise over bytes of unknown origin besides its own error: a number of 5,000 digits, text that is no
# UTF-8, an index past the end, a size that is infinite, a value of another type, a document that is nested too deeply.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, EOFError)


class DlkitError(Exception):
    """Anything dlkit reports to a person in one line."""

    exit_code = 1


class UsageError(DlkitError):
    """A flag, a name or a recipe that cannot be used as given."""

    exit_code = 2


class PartialError(DlkitError):
    """Some inputs failed; the others were answered."""

    exit_code = 3


class DataError(DlkitError):
    """An image, a data set or its classes."""

    exit_code = 4


class ModelFileError(DlkitError):
    """A model, weights or checkpoint file that does not fit or is damaged."""

    exit_code = 5


class VerificationError(DlkitError):
    """Bytes that are not what was promised: a digest, an archive's members, a reproduction."""

    exit_code = 6


class StorageError(DlkitError):
    """Disk, permission or network."""

    exit_code = 7


class DivergedError(DlkitError):
    """The loss or a gradient is no longer finite."""

    exit_code = 8


class OutOfMemoryError(DlkitError):
    """The batch, the model or the image does not fit in memory."""

    exit_code = 9


class WorkerLostError(DlkitError):
    """A loader worker or a rank died."""

    exit_code = 10


class BusyError(DlkitError):
    """Another process is using the run."""

    exit_code = 11


class GateError(DlkitError):
    """A bar set by the caller was not reached."""

    exit_code = 12


class StoppedError(DlkitError):
    """A signal asked for the end; the state was saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
