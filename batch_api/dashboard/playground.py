"""`/playground`: chats with a model; playground.js asks the API as any client does."""

from fastapi import Response

from batch_api.dashboard.pages import Viewing, pages

router = pages()


@router.get("/playground")
async def playground(view: Viewing) -> Response:
    return view.page("playground.html")
