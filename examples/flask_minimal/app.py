"""A shop on Flask and Flask-SQLAlchemy: POST /orders takes an order and promises a message."""

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy

from outbox import Message, enqueue
from outbox.flask import Outbox

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///shop.sqlite"
app.config.from_prefixed_env()  # FLASK_OUTBOX_ENDPOINT and whatever else differs from place to place
db = SQLAlchemy(app)
Outbox(app, db)


class Order(db.Model):
    """What a customer wants."""

    id = db.Column(db.Integer, primary_key=True)
    item = db.Column(db.String(80), nullable=False)


with app.app_context():
    db.create_all()


@app.post("/orders")
def create_order() -> tuple[dict[str, int], int]:
    """Take an order; if anything here fails, there is neither an order nor a message."""
    order = Order(item=request.json["item"])
    db.session.add(order)
    db.session.flush()  # gives the order its id
    enqueue(db.session, Message("orders", {"id": order.id, "item": order.item}, keys=f"order-{order.id}"))
    db.session.commit()
    return {"id": order.id}, 201
