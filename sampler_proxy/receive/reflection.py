"""Answers gRPC's server reflection (grpc/doc/server-reflection.md), by which tools such as grpcurl learn what a port
serves: v1 and v1alpha, whose messages are alike.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from contextlib import suppress

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

from sampler_proxy.errors import MalformedRequest

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
METHODS = tuple(f"/{service}/ServerReflectionInfo" for service in SERVICES)

_INVALID_ARGUMENT, _NOT_FOUND = 3, 5  # of grpc.StatusCode


class Reflection:
    """Answers a message of the call's by one (ServerReflectionRequest, ServerReflectionResponse), about `services`, by
    full name, and itself. From any thread."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted((*services, *SERVICES))
        self._pool = descriptor_pool.DescriptorPool()
        for service in self._services:
            self._learn(service)
        self._add(_version_1())

    def answer(self, request: bytes) -> bytes:
        """Answer one message. Raises MalformedRequest."""
        try:
            asked = reflection_pb2.ServerReflectionRequest.FromString(request)
        except DecodeError:
            raise MalformedRequest("not a request of ServerReflection") from None
        answer = reflection_pb2.ServerReflectionResponse(valid_host=asked.host, original_request=asked)
        try:
            self._fill(answer, asked)
        except KeyError:
            answer.error_response.error_code = _NOT_FOUND
            answer.error_response.error_message = "no such file, symbol or extension"
        response: bytes = answer.SerializeToString()
        return response

    def _fill(
        self, answer: reflection_pb2.ServerReflectionResponse, asked: reflection_pb2.ServerReflectionRequest
    ) -> None:
        """Write what is asked for. Raises KeyError where that is not known."""
        pool = self._pool
        match asked.WhichOneof("message_request"):
            case "list_services":
                for service in self._services:
                    answer.list_services_response.service.add(name=service)
            case "file_by_filename":
                self._write(answer, pool.FindFileByName(asked.file_by_filename))
            case "file_containing_symbol":
                self._write(answer, pool.FindFileContainingSymbol(asked.file_containing_symbol))
            case "file_containing_extension":
                extension = asked.file_containing_extension
                extended = pool.FindMessageTypeByName(extension.containing_type)
                found = pool.FindExtensionByNumber(extended, extension.extension_number)
                self._write(answer, pool.FindFileContainingSymbol(found.full_name))
            case "all_extension_numbers_of_type":
                extended = pool.FindMessageTypeByName(asked.all_extension_numbers_of_type)
                answer.all_extension_numbers_response.base_type_name = extended.full_name
                numbers = sorted(each.number for each in pool.FindAllExtensions(extended))
                answer.all_extension_numbers_response.extension_number.extend(numbers)
            case _:
                answer.error_response.error_code = _INVALID_ARGUMENT
                answer.error_response.error_message = "the request asks for nothing that is known here"

    @staticmethod
    def _write(answer: reflection_pb2.ServerReflectionResponse, file: FileDescriptor) -> None:
        """Write a file, and behind it the files that it needs, each before those that itself needs."""
        files: dict[str, FileDescriptor] = {}

        def collect(each: FileDescriptor) -> None:
            if each.name not in files:
                for needed in each.dependencies:
                    collect(needed)
                files[each.name] = each

        collect(file)
        pieces = [each.serialized_pb for each in reversed(files.values())]
        answer.file_descriptor_response.file_descriptor_proto.extend(pieces)

    def _learn(self, service: str) -> None:
        """Take over the file of a service from its Python module; nothing happens where there is none."""
        package, _, name = service.rpartition(".")
        with suppress(ImportError):
            if package:
                importlib.import_module(f"{package}.{re.sub('(?<!^)(?=[A-Z])', '_', name).lower()}_pb2")
        with suppress(KeyError):
            self._take(descriptor_pool.Default().FindFileContainingSymbol(service))

    def _take(self, file: FileDescriptor) -> None:
        for needed in file.dependencies:
            self._take(needed)
        self._add(file.serialized_pb)

    def _add(self, file: bytes) -> None:
        self._pool.AddSerializedFile(file)  # nothing happens the second time


def _version_1() -> bytes:
    """Return the file of the service's version 1: that of v1alpha under its name."""
    file = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    file.name = file.name.replace("v1alpha", "v1")
    file.package = file.package.replace("v1alpha", "v1")
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = _renamed(field.type_name)
    for service in file.service:
        for method in service.method:
            method.input_type, method.output_type = _renamed(method.input_type), _renamed(method.output_type)
    version_1: bytes = file.SerializeToString()
    return version_1


def _renamed(name: str) -> str:
    return name.replace(".v1alpha.", ".v1.")
