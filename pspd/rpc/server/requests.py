"""Checks every request before its method is called, and ends a call whose method raises an error.

gRPC itself logs a stack trace for a request that it cannot parse, and has one size limit for all methods.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from pspd.errors import BadArgument, LimitReached, PspError
from pspd.host.environment import environment_error
from pspd.rpc.conventions import REASON_KEY
from pspd.rpc.limits import validate_request_size

UNREADABLE = BadArgument("the request is not a message of this API: does the caller run another version?")

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Any], Any]


async def _refuse(context: Context, error: Exception) -> None:
    """End a call with a ``PspError`` or an error of the operating system; raise any other error.

    The call ends with a gRPC status, a message, and a reason for programs.

    Args:
        context: the call.
        error: the error.
    """
    known = error if isinstance(error, PspError) else environment_error(error)
    if known is None:
        raise error
    known.with_traceback(None)  # its frames hold the request
    await context.abort(
        grpc.StatusCode[known.reason.grpc_status], str(known), trailing_metadata=((REASON_KEY, known.reason.value),)
    )


@dataclass(slots=True)
class _Parsed:
    """A parsed request that is taken once, as gRPC keeps the parser's result as long as the call lasts.

    Attributes:
        request: the request, or the error instead of it; None once it was taken.
    """

    request: Any

    async def take(self, context: Context) -> Any:
        """Return the request; end the call if it is an error."""
        request, self.request = self.request, None
        if isinstance(request, PspError):
            await _refuse(context, request)
        return request


class CheckedRequests(grpc.aio.ServerInterceptor):
    """Refuses requests that are too large for their method or cannot be parsed; ends calls whose method raises."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Wrap the parser and the method of a handler; implements ``ServerInterceptor``.

        Args:
            continuation: returns the handler of a call.
            handler_call_details: the call.
        """
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse = _parser(handler_call_details.method, handler.request_deserializer)
        checked = handler._replace(request_deserializer=parse)
        for kind, wrap in _WRAPPERS.items():
            if (method := getattr(handler, kind)) is not None:
                return checked._replace(**{kind: wrap(method)})
        return handler


def _parser(method: str, parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a parser that returns the error of a bad request, as a parser cannot end the call.

    Args:
        method: the method's path.
        parse: its parser.
    """

    def parsed(data: bytes) -> _Parsed:
        try:
            validate_request_size(method, len(data))
            return _Parsed(parse(data))
        except LimitReached as error:
            return _Parsed(error.with_traceback(None))  # a traceback would keep the request in memory
        except DecodeError:
            return _Parsed(UNREADABLE)

    return parsed


def _unary(method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
    async def answer(parsed: _Parsed, context: Context) -> Any:
        request = await parsed.take(context)
        try:
            answered = method(request, context)
        except NotImplementedError:  # raised by a library's service that is newer than its servicer
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server does not have this method")
        del request  # it may be large, and the call and the traceback of an error may live long
        try:
            return await answered
        except Exception as error:
            failure = error
        await _refuse(context, failure)

    return answer


def _streaming(method: Method) -> Callable[[Any, Any], Any]:
    if not inspect.isasyncgenfunction(method):  # such a method writes its answers to the context
        return _unary(method)

    async def stream(parsed: _Parsed, context: Context) -> AsyncGenerator[Any, None]:
        request = await parsed.take(context)
        try:
            async with contextlib.aclosing(method(request, context)) as answers:
                async for answer in answers:
                    yield answer
        except PspError as error:
            await _refuse(context, error)

    return stream


def _conversing(method: Method) -> Callable[[Any, Any], AsyncGenerator[Any, None]]:
    async def accepted(requests: AsyncIterator[_Parsed], context: Context) -> AsyncIterator[Any]:
        async for parsed in requests:
            yield await parsed.take(context)

    async def stream(requests: AsyncIterator[_Parsed], context: Context) -> AsyncGenerator[Any, None]:
        async with contextlib.aclosing(method(accepted(requests, context), context)) as answers:
            async for answer in answers:
                yield answer

    return stream


_WRAPPERS: dict[str, Callable[[Method], Any]] = {
    "unary_unary": _unary,
    "unary_stream": _streaming,
    "stream_stream": _conversing,
}
"""The wrapper of each kind of method; no service has another kind."""
