import pytest
from openai import NotFoundError

from tests.worker.serving import MODEL, Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_model_is_listed_and_found_by_a_name_with_a_slash(worker: Worker) -> None:
    listed = [model async for model in worker.client.models.list()]
    found = await worker.client.models.retrieve(MODEL)

    assert [model.id for model in listed] == [MODEL]
    assert found.to_dict() == listed[0].to_dict()
    assert (found.object, found.owned_by) == ("model", "local")


async def test_another_model_is_404(worker: Worker) -> None:
    with pytest.raises(NotFoundError) as caught:
        await worker.client.models.retrieve("other")

    assert caught.value.code == "model_not_found"


async def test_an_unknown_path_is_404_in_openai_s_shape(worker: Worker) -> None:
    async with worker.session.get("/v1/nothing") as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["type"] == "invalid_request_error"
