"""Checks every request before its method is called, and reports the errors of methods with a status and a reason.

Without these checks, gRPC would log a stack trace for a request that it cannot parse, and would have one size limit for
all methods.
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

UNREADABLE_REQUEST = BadArgument("the request is not a message of this API: does the caller run another version?")

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Any], Any]


async def _refuse(context: Context, error: Exception) -> None:
    """End a call with the gRPC status, message and reason of an error; raise the error itself if it is a bug.

    All errors are bugs, except ``PspError`` and errors of the operating system, such as a full disk.

    Args:
        context: the call.
        error: the error.
    """
    known = error if isinstance(error, PspError) else environment_error(error)
    if known is None:
        raise error
    known.with_traceback(None)  # the frames of the traceback would keep the request in memory
    await context.abort(
        grpc.StatusCode[known.reason.grpc_status], str(known), trailing_metadata=((REASON_KEY, known.reason.value),)
    )


@dataclass(slots=True)
class _Parsed:
    """The result of a parser. gRPC keeps it as long as the call lasts, so the request is taken out of it.

    Attributes:
        request: the request, or the error of a bad request; None after ``take``.
    """

    request: Any

    async def take(self, context: Context) -> Any:
        """Take out and return the request; if it is bad, end the call with its error."""
        request, self.request = self.request, None
        if isinstance(request, PspError):
            await _refuse(context, request)
        return request


class RequestChecker(grpc.aio.ServerInterceptor):
    """Refuses requests that are too large or cannot be parsed; reports the errors that methods raise.

    From an asynchronous generator, it reports only ``PspError``; from a method with a stream of requests, no error.
    """

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
    """Return a parser whose result contains the error of a bad request, as a parser cannot end the call.

    Args:
        method: the method's gRPC path.
        parse: the method's parser.
    """

    def parsed(data: bytes) -> _Parsed:
        try:
            validate_request_size(method, len(data))
            return _Parsed(parse(data))
        except LimitReached as error:
            return _Parsed(error.with_traceback(None))  # a traceback would keep the request in memory
        except DecodeError:
            return _Parsed(UNREADABLE_REQUEST)

    return parsed


def _wrap_unary(method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
    async def answer(parsed: _Parsed, context: Context) -> Any:
        request = await parsed.take(context)
        try:
            answered = method(request, context)
        except NotImplementedError:  # a library's service has a method that its servicer does not implement
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server does not have this method")
        del request  # it may be large, and the call may last long
        try:
            return await answered
        except Exception as error:
            failure = error
        await _refuse(context, failure)

    return answer


def _wrap_unary_stream(method: Method) -> Callable[[Any, Any], Any]:
    if not inspect.isasyncgenfunction(method):  # such a method writes its answers to the context
        return _wrap_unary(method)

    async def stream(parsed: _Parsed, context: Context) -> AsyncGenerator[Any, None]:
        request = await parsed.take(context)
        try:
            async with contextlib.aclosing(method(request, context)) as answers:
                async for answer in answers:
                    yield answer
        except PspError as error:
            await _refuse(context, error)

    return stream


def _wrap_stream_stream(method: Method) -> Callable[[Any, Any], AsyncGenerator[Any, None]]:
    async def requests_of(requests: AsyncIterator[_Parsed], context: Context) -> AsyncIterator[Any]:
        async for parsed in requests:
            yield await parsed.take(context)

    async def stream(requests: AsyncIterator[_Parsed], context: Context) -> AsyncGenerator[Any, None]:
        async with contextlib.aclosing(method(requests_of(requests, context), context)) as answers:
            async for answer in answers:
                yield answer

    return stream


_WRAPPERS: dict[str, Callable[[Method], Any]] = {
    "unary_unary": _wrap_unary,
    "unary_stream": _wrap_unary_stream,
    "stream_stream": _wrap_stream_stream,
}
"""The wrapper of each kind of method; no service has another kind."""
