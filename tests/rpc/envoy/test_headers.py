"""Headers as Envoy has them, and how it is told to change them."""

from monitor.rpc.envoy import headers
from monitor.v1 import ext_proc_pb2 as pb


def told(mutation):
    put = [(o.header.key, o.header.raw_value.decode(), o.append_action) for o in mutation.set_headers]
    return put, list(mutation.remove_headers)


def test_values_come_in_either_field():
    sent = pb.HeaderMap(
        headers=[pb.HeaderValue(key=":path", value="/x"), pb.HeaderValue(key="a", raw_value=b"1")]
    )
    assert headers.read(sent) == [(b":path", b"/x"), (b"a", b"1")]


def test_only_what_differs_is_changed():
    before = [(b":path", b"/x"), (b"same", b"1"), (b"gone", b"2"), (b"content-length", b"9"), (b"two", b"a")]
    after = [(b"same", b"1"), (b"new", b"3"), (b"two", b"a"), (b"two", b"b"), (b"content-length", b"5")]
    overwrite, add = pb.HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD, pb.HEADER_APPEND_ACTION_UNSPECIFIED
    assert told(headers.changes(before, after)) == (
        [("new", "3", overwrite), ("two", "a", overwrite), ("two", "b", add)],
        ["gone", "content-length"],
    )


def test_headers_of_a_response_made_here_have_no_size():
    assert told(headers.only([(b"content-length", b"3"), (b"a", b"b")]))[0][0][:2] == ("a", "b")
