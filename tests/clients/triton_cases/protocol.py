"""The .proto file says what tritonclient's own descriptors say."""

import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from tritonclient.grpc import model_config_pb2, service_pb2

from .base import Case

PROTO = Path(__file__).resolve().parents[3] / "proto"


def ours():
    with tempfile.NamedTemporaryFile() as file:
        code = protoc.main(["protoc", f"-I{PROTO}", "-o", file.name, str(PROTO / "open_inference.proto")])
        assert code == 0, "the .proto file does not compile"
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(file.name).read_bytes()).file
    return files[0]


def theirs():
    files = []
    for module in (service_pb2, model_config_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return files


def fields(messages, prefix=""):
    """(message, field) -> what of it travels."""
    found = {}
    for message in messages:
        name = f"{prefix}{message.name}"
        choices = [choice.name for choice in message.oneof_decl]
        for field in message.field:
            choice = choices[field.oneof_index] if field.HasField("oneof_index") else None
            found[name, field.name] = (field.number, field.type, field.type_name, field.label, choice)
        found |= fields(message.nested_type, f"{name}.")
    return found


def enums(file):
    found = {}

    def look(holder, prefix):
        for enum in holder.enum_type:
            found[f"{prefix}{enum.name}"] = {value.name: value.number for value in enum.value}
        for message in getattr(holder, "nested_type", getattr(holder, "message_type", [])):
            look(message, f"{prefix}{message.name}.")

    look(file, "")
    return found


class Protocol(Case):
    def test_every_field_has_tritons_number_and_type(self):
        mine = fields(ours().message_type)
        other = {}
        for file in theirs():
            other |= fields(file.message_type)
        self.assertGreater(len(mine), 100)
        different = {key: (value, other.get(key)) for key, value in mine.items() if other.get(key) != value}
        self.assertEqual(different, {})

    def test_every_value_has_tritons_number(self):
        other = {}
        for file in theirs():
            other |= enums(file)
        for name, values in enums(ours()).items():
            self.assertEqual(values, other.get(name), name)

    def test_every_method_is_tritons(self):
        def methods(file):
            described = lambda method: (
                method.input_type,
                method.output_type,
                method.client_streaming,
                method.server_streaming,
            )
            return {method.name: described(method) for service in file.service for method in service.method}

        mine, other = methods(ours()), methods(theirs()[0])
        self.assertEqual(ours().package, theirs()[0].package)
        self.assertEqual(mine, {name: other.get(name) for name in mine})
