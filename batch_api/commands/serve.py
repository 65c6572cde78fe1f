"""`batch-api serve`: API and scheduler in this process, workers in child processes."""

import asyncio
import gc
import json
import logging
import socket

from batch_api import __version__
from batch_api.api.app import create_app
from batch_api.api.keys import Keyring
from batch_api.api.sessions import Sessions
from batch_api.commands.addresses import urls_of
from batch_api.commands.embedded import embedded
from batch_api.commands.keys import has_keys
from batch_api.commands.listening import bind, listen, stop_on_signals
from batch_api.dashboard.app import add_dashboard
from batch_api.errors import Unusable
from batch_api.gate import Visitors, is_loopback
from batch_api.settings import DEMO_MODEL, Settings, Task, served_name
from batch_api.upstream import without_userinfo

log = logging.getLogger(__name__)

# Lines to paste.
_TRY: dict[Task, str] = {
    "generate": 'client.chat.completions.create(model=model, messages=[{"role": "user", "content": "What is 2+2?"}]).choices[0].message.content',  # noqa: E501
    "embed": 'client.embeddings.create(model=model, input="What is 2+2?").data[0].embedding[:4]',
}


class AnyoneLetIn(Unusable):
    pass


class WebhooksUnsigned(Unusable):
    pass


async def serve(settings: Settings) -> None:
    """Until a signal. Raises Unusable, also in an exception group."""
    check_webhooks(settings)
    await check_exposure(settings)
    with bind(settings.host, settings.port) as listener:
        await _serve(settings, listener)
    log.info("stopped")


async def _serve(settings: Settings, listener: socket.socket) -> None:
    stop = stop_on_signals()
    async with embedded(settings) as it, asyncio.TaskGroup() as group:
        keyring = await Keyring.open(it.database, settings, it.clock)
        app = create_app(
            database=it.database,
            blobs=it.blobs,
            upstreams=it.upstreams,
            settings=settings,
            clock=it.clock,
            ring=it.scheduler.ring,
            keyring=keyring,
            registry=it.registry,
            sessions=await Sessions.open(settings.data_dir, keyring, it.clock),
        )
        add_dashboard(app, stop)
        group.create_task(keyring.run(stop))
        group.create_task(it.scheduler.run(stop))
        group.create_task(
            listen(
                app,
                listener,
                stop,
                grace_seconds=settings.shutdown_grace_seconds,
                visitors=Visitors(hosts=settings.allowed_hosts, origins=settings.allowed_origins),
                client_timeout_seconds=settings.client_timeout_seconds,
            )
        )
        # What has been made by now stays for good: no need to look at it for garbage again.
        gc.freeze()
        print(_banner(settings, listener), flush=True)


async def check_exposure(settings: Settings) -> None:
    """Who needs no key must be on this machine. Raises AnyoneLetIn."""
    if is_loopback(settings.host) or settings.allow_anyone or settings.api_key is not None:
        return
    if not await has_keys(settings.data_dir):
        raise AnyoneLetIn(
            f"Without a key, a server on {settings.host} would let in whoever reaches it: make one "
            "with `batch-api keys create NAME`, or say --allow-anyone."
        )


def check_webhooks(settings: Settings) -> None:
    """Raises WebhooksUnsigned: anybody could send what is not signed."""
    if (settings.webhook_urls or settings.webhook_hosts) and settings.webhook_secret is None:
        raise WebhooksUnsigned(
            "Webhooks are signed: set BATCH_API_WEBHOOK_SECRET to what `batch-api webhooks secret` "
            "prints, or unset BATCH_API_WEBHOOK_URLS and BATCH_API_WEBHOOK_HOSTS."
        )


def _banner(settings: Settings, listener: socket.socket) -> str:
    urls = [f"{url}/v1" for url in urls_of(listener)]
    url, where = urls[0], " and ".join(urls)
    return f"""batch-api {__version__} listens on {where} and serves {_what(settings)}. Try it:

    import os
    from openai import OpenAI
    client = OpenAI(base_url="{url}", api_key=os.environ.get("BATCH_API_API_KEY", "none"))
    model = {_model(settings)}
    print({_TRY[settings.task]})
"""


def _what(settings: Settings) -> str:
    if settings.upstream:
        return f"what is behind {', '.join(map(without_userinfo, settings.upstream))}"
    if settings.model == str(DEMO_MODEL):
        return "the small model that comes with it; --model takes any other"
    return settings.model


def _model(settings: Settings) -> str:
    """Python to paste: upstreams are not asked here, for they may come later."""
    if settings.upstream:
        return "client.models.list().data[0].id"
    return json.dumps(served_name(settings.model))
