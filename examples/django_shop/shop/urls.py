"""Where everything is."""

from django.contrib import admin
from django.urls import path

from shop import views

urlpatterns = [
    path("", views.home, name="home"),
    path("orders", views.take_order, name="take_order"),
    path("admin/", admin.site.urls),
]
