"""Keys for tests, made as the command makes them."""

import secrets

from batch_api.api.keys import Keyring, hashed
from batch_api.schemas.ids import key_id
from batch_api.settings import Settings
from batch_api.store.orders import NewKey, Orders, Revocation

CREATED_AT = 1_794_000_000


def leave(settings: Settings, tenant: str, *, expires_at: int | None = None) -> tuple[str, str]:
    """The id and the secret of a key that the server shall have."""
    id, secret = key_id(), f"sk-{secrets.token_urlsafe(32)}"
    new = NewKey(id, hashed(secret.encode()), "test", tenant, CREATED_AT, expires_at)
    Orders(settings.data_dir).leave(new)
    return id, secret


async def make(
    keyring: Keyring, settings: Settings, tenant: str, *, expires_at: int | None = None
) -> str:
    """A secret that is let in."""
    _, secret = leave(settings, tenant, expires_at=expires_at)
    await keyring.take_orders_once()
    return secret


async def revoke(keyring: Keyring, settings: Settings, id: str) -> None:
    Orders(settings.data_dir).leave(Revocation(id, CREATED_AT))
    await keyring.take_orders_once()
