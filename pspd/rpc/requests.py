"""Requests that are no message of the control API: refused like any other mistake, not failures of the server."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from pspd.errors import BadArgument
from pspd.rpc.servicers import refuse

UNREADABLE = BadArgument("the request is no message of this API: is the other side of another version?")


class ReadableRequests(grpc.aio.ServerInterceptor):
    """Refuses what cannot be read. Without it each such call costs a stack trace in the log."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Implements ``ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        if handler.response_streaming and not inspect.isasyncgenfunction(handler.unary_stream):
            return handler  # of another library, which writes its answers otherwise
        readable = handler._replace(request_deserializer=_none_if_unreadable(handler.request_deserializer))
        if handler.response_streaming:
            return readable._replace(unary_stream=_streaming(handler.unary_stream))
        return readable._replace(unary_unary=_answering(handler.unary_unary))


Streaming = Callable[[Any, Any], AsyncGenerator[Any, None]]


def _none_if_unreadable(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def tried(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return None

    return tried


def _answering(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def answer(request: Any, context: Any) -> Any:
        if request is None:
            await refuse(context, UNREADABLE)
        return await method(request, context)

    return answer


def _streaming(
    method: Callable[[Any, Any], AsyncGenerator[Any, None]],
) -> Callable[[Any, Any], AsyncGenerator[Any, None]]:
    async def stream(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        if request is None:
            await refuse(context, UNREADABLE)
        async with contextlib.aclosing(method(request, context)) as answers:
            async for answer in answers:
                yield answer

    return stream
