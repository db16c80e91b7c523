"""A shop on Flask: orders, two messages for each in the order's own transaction, and the operators' pages.

``python run.py`` starts it with everything that it needs.
"""

from celery import Celery, Task, shared_task
from flask import Flask, current_app, redirect, render_template, request, session, url_for
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from werkzeug import Response

from outbox import Message, enqueue
from outbox.celery import install
from outbox.flask import Outbox

db = SQLAlchemy()
migrate = Migrate()
csrf = CSRFProtect()
outbox = Outbox(admin_auth=lambda _request: session.get("operator"))


class Order(db.Model):
    """What a customer wants."""

    __tablename__ = "orders"
    id = db.Column(db.Integer, primary_key=True)
    item = db.Column(db.String(80), nullable=False)


def create_app() -> Flask:
    """Make the app; its config is the environment's FLASK_…, such as FLASK_OUTBOX_ENDPOINT."""
    app = Flask(__name__)
    app.config.from_prefixed_env()
    db.init_app(app)
    migrate.init_app(app, db)
    csrf.init_app(app)
    outbox.init_app(app, db)
    make_celery(app)
    for path, view in (("/", home), ("/orders", take_order), ("/login", log_in)):
        app.add_url_rule(path, view_func=view, methods=["GET"] if path == "/" else ["POST"])
    return app


def make_celery(app: Flask) -> Celery:
    """Celery as Flask documents it, each task in the app's context; and the outbox's tasks with the app's settings."""

    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    install(celery_app, app.extensions["outbox"].settings)
    app.extensions["celery"] = celery_app
    return celery_app


@shared_task(ignore_result=True)
def report() -> None:
    """A task of the shop's own, which reads the shop's database; beat sends it once a minute."""
    print("orders so far:", db.session.query(Order).count())


def place(item: str) -> int:
    """Write down an order and promise its messages: all of it, or nothing. Returns the order's id."""
    order = Order(item=item)
    db.session.add(order)
    db.session.flush()  # gives the order its id
    body, key = {"id": order.id, "item": item}, f"order-{order.id}"
    enqueue(
        db.session,
        Message("orders", body, tag="created", keys=key),
        Message("invoices", body, tag="created", keys=key),
    )
    db.session.commit()
    return order.id


def home() -> str:
    """The shop's only page."""
    orders = db.session.query(Order).order_by(Order.id.desc()).limit(10).all()
    return render_template("shop.html", orders=orders, operator=session.get("operator"))


def take_order() -> Response:
    """Take the order of a form."""
    place(request.form["item"][:80])
    return redirect(url_for("home"), 303)


def log_in() -> Response:
    """Let an operator in who knows the password, and out who gives another."""
    knows = request.form["password"] == current_app.config["OPERATOR_PASSWORD"]
    session["operator"] = request.form["name"][:80] if knows else None
    return redirect(url_for("outbox.overview") if knows else url_for("home"), 303)
