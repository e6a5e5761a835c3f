"""How a call ends with an error."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from pspd.errors import PspError
from pspd.host.environment import environment_error
from pspd.rpc.conventions import REASON_KEY

Context = grpc.aio.ServicerContext[Any, Any]
R = TypeVar("R")


async def refuse(context: Context, error: PspError) -> None:
    """End a call with an error: its gRPC status, its message, and its reason for programs.

    Args:
        context: the call.
        error: the error.
    """
    error.with_traceback(None)  # its frames hold the request
    await context.abort(
        grpc.StatusCode[error.grpc_status], str(error), trailing_metadata=((REASON_KEY, error.reason.value),)
    )


def answering(method: Callable[..., Awaitable[R]]) -> Callable[..., Awaitable[R]]:
    """Wrap a method so that it may raise ``PspError``, and convert errors of the operating system to one."""

    @functools.wraps(method)
    async def wrapped(self: object, request: object, context: Context) -> R:
        answer = method(self, request, context)
        del request  # it may be large, and the call and its error may live long
        try:
            return await answer
        except Exception as error:
            known = error if isinstance(error, PspError) else environment_error(error)
            if known is None:
                raise
        await refuse(context, known)
        raise known

    return wrapped
