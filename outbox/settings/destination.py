"""What the settings say of one destination, complete: what a request to it needs."""

from pydantic import AwareDatetime, BaseModel, ConfigDict

from outbox.settings.values import KeyId, Secret, Unreserved

__all__ = ["Destination", "Keys"]


class Keys(BaseModel):
    """An AccessKey.

    Attributes:
        security_token: sent as ``security-token`` beside temporary (STS) keys.
        expires_at: when such keys end; None where that is not known. Read from an aware datetime, its text in ISO 8601,
            or seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    access_key_id: KeyId
    access_key_secret: Secret
    security_token: Secret | None = None
    expires_at: AwareDatetime | None = None


class Destination(Keys):
    """Where a lane's messages go: a named endpoint, instance and credentials.

    Attributes:
        name: ``"default"``, or a key of ``OUTBOX_DESTINATIONS``.
        endpoint: ``https://<account>.mqrest.<region>.aliyuncs.com``, without a path or a trailing slash.
        instance_id: sent as ``ns``; left out of the request when empty.
        group_id: sent as ``consumer`` when half messages are ended or checked; may be empty otherwise.
    """

    name: str = "default"
    endpoint: str
    instance_id: Unreserved = ""
    group_id: Unreserved = ""
