"""Orders."""

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from outbox.django import Message, enqueue
from shop.models import Order


def place(item: str) -> Order:
    """Write down an order and promise its messages: all of it, or nothing."""
    with transaction.atomic():
        order = Order.objects.create(item=item)
        body, key = {"id": order.pk, "item": item}, f"order-{order.pk}"
        enqueue(
            Message("orders", body, tag="created", keys=key),
            Message("invoices", body, tag="created", keys=key),
        )
    return order


def home(request: HttpRequest) -> HttpResponse:
    """The shop's only page."""
    return render(request, "shop.html", {"orders": Order.objects.order_by("-pk")[:10]})


@require_POST
def take_order(request: HttpRequest) -> HttpResponse:
    """Take the order of a form."""
    place(request.POST["item"][:80])
    return redirect("home")
