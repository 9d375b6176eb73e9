"""POST /v1/files and what is asked about the files: pictures that are sent once and asked about often."""

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response

from smolvlm_edge.server.problems import HttpError
from smolvlm_edge.server.protocol.state import Deleted, FileObject, Files
from smolvlm_edge.server.replies import as_json
from smolvlm_edge.server.service import service_of
from smolvlm_edge.server.uploads import Upload


class _InMemory(MultiPartParser):
    """Writes nothing to the disk; how much may come is for `guards`."""

    spool_max_size = 1 << 40


async def upload(request: Request) -> Response:
    """Keep a file, sent as multipart/form-data under the name `file`."""
    service = service_of(request)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HttpError("a file is sent as multipart/form-data", 415, param="file")
    parser = _InMemory(request.headers, request.stream(), max_files=1, max_fields=16)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise HttpError(f"the form cannot be read: {error}") from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise HttpError("the form has no file under the name 'file'", param="file")
        return as_json(_object(service.uploads.add(await file.read(), file.filename or "file")))
    finally:
        await form.close()


async def files(request: Request) -> Response:
    """All files."""
    return as_json(Files(data=[_object(each) for each in service_of(request).uploads.all()]))


async def file(request: Request) -> Response:
    """One of them."""
    return as_json(_object(service_of(request).uploads.get(request.path_params["id"])))


async def delete(request: Request) -> Response:
    """Forget one."""
    service_of(request).uploads.remove(request.path_params["id"])
    return as_json(Deleted(id=request.path_params["id"]))


def _object(upload: Upload) -> FileObject:
    return FileObject(id=upload.id, bytes=len(upload.data), created_at=upload.created_at, filename=upload.filename)
