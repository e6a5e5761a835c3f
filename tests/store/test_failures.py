"""Errors of the operating system: which decline a file, and which end the client."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pspd.errors import StorageError, StoreFailed
from pspd.store.files.failures import OF_ONE_FILE, OF_THE_STORE, failed

PATH = Path("/srv/files/.psp/x.part")


@pytest.mark.parametrize("number", errno.errorcode)
@pytest.mark.parametrize("action", ["write", "read", "open", "finish", "remove", "flush"])
def test_failed_ends_the_client_for_store_errors_only(action: str, number: int) -> None:
    error = failed(action, PATH, OSError(number, "whatever"))
    is_bad_sector = action == "read" and number in (errno.EIO, errno.EBADMSG)
    assert isinstance(error, StoreFailed) == (number in OF_THE_STORE and not is_bad_sector)
    assert str(error).startswith(f"cannot {action} {PATH}: {os.strerror(number)}: ")


def test_no_errno_is_in_both_tables() -> None:
    assert not OF_ONE_FILE.keys() & OF_THE_STORE.keys()


@pytest.mark.parametrize(
    "number",
    [
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
        *(errno.ELOOP, errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EACCES, errno.EMFILE),
    ],
)
def test_errors_of_one_file_have_their_own_advice(number: int) -> None:
    assert OF_ONE_FILE[number]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.EUCLEAN, errno.ENOTCONN])
def test_errors_of_the_store_have_their_own_advice(number: int) -> None:
    assert OF_THE_STORE[number]


def test_an_error_without_a_number_is_told_by_its_text() -> None:
    error = failed("read", PATH, OSError("odd"))
    assert str(error) == f"cannot read {PATH}: odd: check the folder and its disk"
    assert type(error) is StorageError
