"""Checks each line of a stream against its schema, which schemathesis leaves to us: NDJSON is no media type it reads."""

import json

import jsonschema
import schemathesis


@schemathesis.check
def each_line_conforms(ctx, response, case):
    kinds = response.headers.get("content-type") or [""]
    if not kinds[0].startswith("application/x-ndjson"):
        return
    document = case.operation.schema.raw_schema
    operation = document["paths"][case.operation.path][case.operation.method.lower()]
    schema = operation["responses"]["200"]["content"]["application/x-ndjson"]["schema"]
    # References lead into the document's components.
    validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
    for line in response.content.splitlines():
        fault = next(validator.iter_errors(json.loads(line)), None)
        assert fault is None, f"{case.operation.label}: {fault.message} in {line[:500]!r}"
