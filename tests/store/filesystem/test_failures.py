"""Errors of the operating system: some decline a file, others end the client."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pspd.errors import StorageError, StoreFailed
from pspd.store.filesystem.failures import FILE_ERROR_ADVICE, STORE_ERROR_ADVICE, storage_error

PATH = Path("/srv/files/.psp/x.part")


@pytest.mark.parametrize("number", errno.errorcode)
@pytest.mark.parametrize("action", ["write", "read", "open", "finish", "remove", "flush"])
def test_only_store_errors_end_the_client(action: str, number: int) -> None:
    error = storage_error(action, PATH, OSError(number, "whatever"))
    is_bad_sector = action == "read" and number in (errno.EIO, errno.EBADMSG)
    assert isinstance(error, StoreFailed) == (number in STORE_ERROR_ADVICE and not is_bad_sector)
    assert str(error).startswith(f"cannot {action} {PATH}: {os.strerror(number)}: ")


def test_no_errno_is_in_both_tables() -> None:
    assert not FILE_ERROR_ADVICE.keys() & STORE_ERROR_ADVICE.keys()


@pytest.mark.parametrize(
    "number",
    [
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
        *(errno.ELOOP, errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EACCES, errno.EMFILE),
    ],
)
def test_file_errors_have_advice(number: int) -> None:
    assert FILE_ERROR_ADVICE[number]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.EUCLEAN, errno.ENOTCONN])
def test_store_errors_have_advice(number: int) -> None:
    assert STORE_ERROR_ADVICE[number]


def test_error_without_a_number_shows_its_text() -> None:
    error = storage_error("read", PATH, OSError("odd"))
    assert str(error) == f"cannot read {PATH}: odd: check the folder and its disk"
    assert type(error) is StorageError
