"""The shop's only table."""

from django.db import models


class Order(models.Model):
    """What a customer wants."""

    item = models.CharField(max_length=80)

    def __str__(self) -> str:
        return f"order {self.pk}: {self.item}"
