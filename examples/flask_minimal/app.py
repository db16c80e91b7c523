"""A shop on Flask and Flask-SQLAlchemy: POST /orders takes an order and promises a message."""

import os

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy

from outbox import Message, enqueue, prepare_sqlite

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["OUTBOX_DATABASE_URL"]
db = SQLAlchemy(app)


class Order(db.Model):
    """What a customer wants."""

    id = db.Column(db.Integer, primary_key=True)
    item = db.Column(db.String(80), nullable=False)


with app.app_context():
    if db.engine.dialect.name == "sqlite":
        prepare_sqlite(db.engine)
    db.create_all()


@app.post("/orders")
def create_order() -> tuple[dict[str, int], int]:
    """Take an order; if anything here fails, there is neither an order nor a message."""
    order = Order(item=request.json["item"])
    db.session.add(order)
    db.session.flush()  # gives the order its id
    message = Message("orders", {"id": order.id, "item": order.item}, tag="created", keys=f"order-{order.id}")
    enqueue(db.session, message)
    db.session.commit()
    return {"id": order.id}, 201
