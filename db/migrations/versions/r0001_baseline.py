"""The whole schema; the views are in :mod:`db.views`, which every migration makes anew."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


# Entries may be removed up to a checkpoint, and nothing else of the audit trail may be changed. A table's owner could
# drop these triggers; that the trail was changed then shows by its hash chain (db/audit_chain.py).
APPEND_ONLY = {
    "sqlite": (
        """
CREATE TRIGGER audit_is_not_updated BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END""",
        """
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
WHEN OLD.id > coalesce((SELECT max(position) FROM audit_checkpoints), 0)
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END""",
        """
CREATE TRIGGER audit_checkpoints_is_not_updated BEFORE UPDATE ON audit_checkpoints
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END""",
        """
CREATE TRIGGER audit_checkpoints_is_not_deleted BEFORE DELETE ON audit_checkpoints
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END""",
    ),
    "postgresql": (
        """
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'audit' THEN
        IF OLD.id <= coalesce((SELECT max(position) FROM audit_checkpoints), 0) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit trail is append-only';
END $$""",
        *(
            f"CREATE TRIGGER {table}_{name} BEFORE {event} ON {table} "
            f"FOR EACH {each} EXECUTE FUNCTION audit_is_append_only()"
            for table in ("audit", "audit_checkpoints")
            for name, event, each in (
                ("is_not_changed", "UPDATE OR DELETE", "ROW"),
                ("is_not_emptied", "TRUNCATE", "STATEMENT"),
            )
        ),
    ),
}


def upgrade() -> None:
    _create_api_tokens()
    _create_destinations()
    _create_hl7_messages()
    _create_login_attempts()
    _create_model_switches()
    _create_models()
    _create_patient_merges()
    _create_rejected_associations()
    _create_backfill()
    _create_rejections()
    _create_studies()
    _create_users()
    _create_saved_filters()
    _create_scheduler_lease()
    _create_destination_leases()
    _create_audit()
    _create_events()
    _create_notifications()
    _create_orders()
    _create_series()
    _create_sessions()
    _create_study_accessions()
    _create_study_words()
    _create_prior_searches()
    _create_instances()
    _create_jobs()
    _create_findings()
    _create_results()
    _create_deliveries()
    _create_feedback()
    _create_assessments()
    _create_erasures()


def downgrade() -> None:
    op.drop_table("erased_files")
    op.drop_table("erased_studies")
    op.drop_table("erasures")
    op.drop_table("assessments")
    op.drop_table("feedback")
    op.drop_table("deliveries")
    op.drop_table("results")
    op.drop_table("findings")
    op.drop_table("jobs")
    op.drop_table("instances")
    op.drop_table("prior_searches")
    op.drop_table("study_words")
    op.drop_table("study_accessions")
    op.drop_table("sessions")
    op.drop_table("series")
    op.drop_table("orders")
    op.drop_table("notifications")
    op.drop_table("events")
    op.drop_table("audited_configurations")
    op.drop_table("audit_feeds")
    op.drop_table("audit_checkpoints")
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_append_only")
    op.drop_table("destination_leases")
    op.drop_table("scheduler_lease")
    op.drop_table("saved_filters")
    op.drop_table("users")
    op.drop_table("studies")
    op.drop_table("rejections")
    op.drop_table("backfilled_studies")
    op.drop_table("backfill_runs")
    op.drop_table("rejected_associations")
    op.drop_table("patient_merges")
    op.drop_table("models")
    op.drop_table("model_switches")
    op.drop_table("login_attempts")
    op.drop_table("hl7_messages")
    op.drop_table("destinations")
    op.drop_table("api_tokens")


def _create_api_tokens() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("token_digest", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("token_digest", name="uq_api_tokens_token_digest"),
    )


def _create_destinations() -> None:
    op.create_table(
        "destinations",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("last_sent_at", MOMENT, nullable=True),
        sa.Column("last_failed_at", MOMENT, nullable=True),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("open_until", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_destinations"),
    )


def _create_hl7_messages() -> None:
    op.create_table(
        "hl7_messages",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("control_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hl7_messages"),
        sa.UniqueConstraint("sender", "control_id", "digest", name="uq_hl7_messages_sender_control_id_digest"),
    )
    op.create_index("ix_hl7_messages_at", "hl7_messages", ["at"], unique=False)


def _create_login_attempts() -> None:
    op.create_table(
        "login_attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(length=120), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("failed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_login_attempts"),
    )
    op.create_index("ix_login_attempts_address", "login_attempts", ["address"], unique=False)
    op.create_index("ix_login_attempts_subject", "login_attempts", ["subject"], unique=False)


def _create_model_switches() -> None:
    op.create_table(
        "model_switches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=False),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_switches"),
    )
    op.create_index("ix_model_switches_model", "model_switches", ["model"], unique=False)


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("first_used_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_models"),
    )


def _create_patient_merges() -> None:
    op.create_table(
        "patient_merges",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("prior_patient_id", sa.Text(), nullable=False),
        sa.Column("prior_issuer", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_patient_merges"),
    )
    op.create_index("ix_patient_merges_prior_patient_id", "patient_merges", ["prior_patient_id"], unique=False)


def _create_rejected_associations() -> None:
    op.create_table(
        "rejected_associations",
        sa.Column("calling_ae_title", sa.String(length=64), nullable=False),
        sa.Column("called_ae_title", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=80), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_at", MOMENT, nullable=False),
        sa.Column("last_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint(
            "calling_ae_title", "called_ae_title", "address", "reason", name="pk_rejected_associations"
        ),
    )


def _create_backfill() -> None:
    op.create_table(
        "backfill_runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("scheduled_for", sa.String(length=8), nullable=True),
        sa.Column("archive", sa.String(length=64), nullable=False),
        sa.Column("date_from", sa.String(length=8), nullable=False),
        sa.Column("date_to", sa.String(length=8), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("lease_until", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("studies", sa.Integer(), nullable=False),
        sa.Column("incomplete", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("erased", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_backfill_runs"),
        sa.UniqueConstraint("scheduled_for", name="uq_backfill_runs_scheduled_for"),
    )
    op.create_table(
        "backfilled_studies",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("requested_at", MOMENT, nullable=False),
        sa.Column("pull_ends_at", MOMENT, nullable=False),
        sa.Column("for_prior", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("pulls", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("asked_twice", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name="pk_backfilled_studies"),
    )


def _create_rejections() -> None:
    op.create_table(
        "rejections",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("note_uid", sa.String(length=64), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rejections"),
        sa.UniqueConstraint("sop_instance_uid", "note_uid", name="uq_rejections_sop_instance_uid_note_uid"),
    )


def _create_studies() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=False),
        sa.Column("patient_birth_date", sa.Text(), nullable=False),
        sa.Column("patient_sex", sa.Text(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.Column("study_date", sa.Text(), nullable=False),
        sa.Column("study_time", sa.Text(), nullable=False),
        sa.Column("study_description", sa.Text(), nullable=False),
        sa.Column("modalities", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("on_hold", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("hold_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("stat", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("hospital_priority", sa.String(length=16), nullable=True),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("analysis", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("first_received_at", MOMENT, nullable=False),
        sa.Column("last_activity_at", MOMENT, nullable=False),
        sa.Column("completed_at", MOMENT, nullable=True),
        sa.Column("activity", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("compared_with", sa.String(length=64), server_default="", nullable=False),
        sa.Column("correction", sa.Text(), server_default="", nullable=False),
        sa.Column("images", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_eligible", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reported_at", MOMENT, nullable=True),
        sa.Column("reported_by", sa.Text(), server_default="", nullable=False),
        sa.Column("files_removed_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
        sa.UniqueConstraint("study_instance_uid", name="uq_studies_study_instance_uid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_studies_accession_number", "studies", ["accession_number"], unique=False)
    op.create_index("ix_studies_due_at_id", "studies", ["due_at", "id"], unique=False)
    op.create_index("ix_studies_patient_id", "studies", ["patient_id"], unique=False)
    op.create_index(
        "ix_studies_completed_at",
        "studies",
        ["completed_at"],
        unique=False,
        sqlite_where=sa.text("files_removed_at IS NULL AND completed_at IS NOT NULL"),
        postgresql_where=sa.text("files_removed_at IS NULL AND completed_at IS NOT NULL"),
    )
    op.create_index(
        "ix_studies_compared_with",
        "studies",
        ["compared_with"],
        unique=False,
        sqlite_where=sa.text("compared_with <> ''"),
        postgresql_where=sa.text("compared_with <> ''"),
    )
    op.create_index(
        "ix_studies_not_analysed_due_at_id",
        "studies",
        ["analysis", "due_at", "id"],
        unique=False,
        sqlite_where=sa.text("reported_at IS NULL AND analysis IN ('not analysed', 'failed')"),
        postgresql_where=sa.text("reported_at IS NULL AND analysis IN ('not analysed', 'failed')"),
    )
    op.create_index(
        "ix_studies_on_hold_due_at_id",
        "studies",
        ["due_at", "id"],
        unique=False,
        sqlite_where=sa.text("reported_at IS NULL AND (on_hold IS 1 OR correction <> '')"),
        postgresql_where=sa.text("reported_at IS NULL AND (on_hold IS true OR correction <> '')"),
    )
    op.create_index("ix_studies_state_due_at_id", "studies", ["state", "due_at", "id"], unique=False)
    op.create_index("ix_studies_state_last_activity_at", "studies", ["state", "last_activity_at"], unique=False)
    op.create_index("ix_studies_study_date_due_at_id", "studies", ["study_date", "due_at", "id"], unique=False)
    op.create_index(
        "ix_studies_unreported_counted",
        "studies",
        ["priority", "analysis", "on_hold", "correction", "reported_at"],
        unique=False,
        sqlite_where=sa.text("reported_at IS NULL"),
        postgresql_where=sa.text("reported_at IS NULL"),
    )
    op.create_index(
        "ix_studies_unreported_due_at_id",
        "studies",
        ["due_at", "id", "reported_at"],
        unique=False,
        sqlite_where=sa.text("reported_at IS NULL"),
        postgresql_where=sa.text("reported_at IS NULL"),
    )


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("issuer", sa.String(length=255), nullable=True),
        sa.Column("subject", sa.String(length=255), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_login_at", MOMENT, nullable=True),
        sa.Column("language", sa.String(length=8), server_default="", nullable=False),
        sa.Column("theme", sa.String(length=8), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("issuer", "subject", name="uq_users_issuer_subject"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )


def _create_saved_filters() -> None:
    op.create_table(
        "saved_filters",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_saved_filters_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_saved_filters"),
        sa.UniqueConstraint("user_id", "name", name="uq_saved_filters_user_id_name"),
    )


def _create_scheduler_lease() -> None:
    op.create_table(
        "scheduler_lease",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("stand_by", sa.Text(), nullable=False),
        sa.Column("stand_by_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_scheduler_lease"),
    )


def _create_destination_leases() -> None:
    op.create_table(
        "destination_leases",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("lease_until", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["destination"], ["destinations.name"], name="fk_destination_leases_destination"),
        sa.PrimaryKeyConstraint("worker", name="pk_destination_leases"),
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("action", sa.String(length=48), nullable=False),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("failed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("subject", sa.String(length=120), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_action_at", "audit", ["action", "at"], unique=False)
    op.create_index("ix_audit_at", "audit", ["at"], unique=False)
    op.create_index("ix_audit_study_id", "audit", ["study_id"], unique=False)
    op.create_table(
        "audit_checkpoints",
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_audit_checkpoints"),
    )
    op.create_table(
        "audit_feeds",
        sa.Column("repository", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sent_at", MOMENT, nullable=True),
        sa.Column("worker", sa.Text(), server_default="", nullable=False),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("due_at", MOMENT, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("repository", name="pk_audit_feeds"),
    )
    op.create_table(
        "audited_configurations",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("host", name="pk_audited_configurations"),
    )
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("entity", sa.String(length=16), nullable=False),
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=False),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_events_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_study_id", "events", ["study_id"], unique=False)


def _create_notifications() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), server_default="", nullable=False),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("due_at", MOMENT, nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("sent_at", MOMENT, nullable=True),
        sa.Column("taken_by", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_notifications_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.UniqueConstraint("key", name="uq_notifications_key"),
        sa.UniqueConstraint("study_id", "channel", "reason", name="uq_notifications_study_id_channel_reason"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notifications_state_channel", "notifications", ["state", "channel"], unique=False)


def _create_orders() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("placer_order_number", sa.Text(), nullable=False),
        sa.Column("filler_order_number", sa.Text(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), nullable=False),
        sa.Column("other_identifiers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("priority", sa.String(length=16), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reported_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_orders_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
    )
    op.create_index("ix_orders_accession_number", "orders", ["accession_number"], unique=False)
    op.create_index("ix_orders_filler_order_number", "orders", ["filler_order_number"], unique=False)
    op.create_index("ix_orders_placer_order_number", "orders", ["placer_order_number"], unique=False)
    op.create_index("ix_orders_study_id", "orders", ["study_id"], unique=False)
    op.create_index("ix_orders_study_instance_uid", "orders", ["study_instance_uid"], unique=False)
    op.create_index("ix_orders_updated_at", "orders", ["updated_at"], unique=False)


def _create_series() -> None:
    op.create_table(
        "series",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("body_part", sa.Text(), nullable=False),
        sa.Column("series_description", sa.Text(), nullable=False),
        sa.Column("station_name", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_series_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
        sa.UniqueConstraint("study_id", "series_instance_uid", name="uq_series_study_id_series_instance_uid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_series_series_instance_uid", "series", ["series_instance_uid"], unique=False)


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("token_digest", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("csrf", sa.String(length=64), nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user_id"),
        sa.PrimaryKeyConstraint("token_digest", name="pk_sessions"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"], unique=False)


def _create_study_accessions() -> None:
    op.create_table(
        "study_accessions",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_study_accessions_study_id"),
        sa.PrimaryKeyConstraint("study_id", "accession_number", name="pk_study_accessions"),
    )
    op.create_index("ix_study_accessions_accession_number", "study_accessions", ["accession_number"], unique=False)


def _create_study_words() -> None:
    op.create_table(
        "study_words",
        sa.Column(
            "word",
            sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_study_words_study_id"),
        sa.PrimaryKeyConstraint("word", "study_id", name="pk_study_words"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_study_words_study_id_word", "study_words", ["study_id", "word"], unique=False)


def _create_prior_searches() -> None:
    op.create_table(
        "prior_searches",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("prior_study_instance_uid", sa.String(length=64), server_default="", nullable=False),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_prior_searches_study_id"),
        sa.PrimaryKeyConstraint("study_id", name="pk_prior_searches"),
    )
    op.create_index(
        "ix_prior_searches_started_at",
        "prior_searches",
        ["started_at"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def _create_instances() -> None:
    op.create_table(
        "instances",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("series_id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("view", sa.Text(), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("not_eligible_code", sa.Text(), server_default="", nullable=False),
        sa.Column("not_eligible_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("flag", sa.String(length=16), server_default="", nullable=False),
        sa.Column("route", sa.JSON(), nullable=True),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name="fk_instances_series_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_instances_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.UniqueConstraint("sop_instance_uid", "digest", name="uq_instances_sop_instance_uid_digest"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_instances_received_at", "instances", ["received_at"], unique=False)
    op.create_index("ix_instances_study_id", "instances", ["study_id"], unique=False)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("pipeline", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("stat", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("queue", sa.Text(), server_default="jobs", nullable=False),
        sa.Column("worker", sa.Text(), server_default="", nullable=False),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("due_at", MOMENT, nullable=True),
        sa.Column("dispatched_at", MOMENT, nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("not_analysed_code", sa.Text(), server_default="", nullable=False),
        sa.Column("not_analysed_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("timings", sa.JSON(), nullable=False),
        sa.Column("modes", sa.JSON(), nullable=True),
        sa.Column("measures", sa.JSON(), nullable=True),
        sa.Column("ran_on", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("queued_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name="fk_jobs_instance_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_jobs_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("instance_id", "pipeline", "revision", name="uq_jobs_instance_id_pipeline_revision"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_jobs_finished_at",
        "jobs",
        ["finished_at"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index("ix_jobs_state_dispatched_at", "jobs", ["state", "dispatched_at"], unique=False)
    op.create_index("ix_jobs_study_id_state", "jobs", ["study_id", "state"], unique=False)


def _create_findings() -> None:
    op.create_table(
        "findings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("shadow", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("area_mm2", sa.Double(), nullable=True),
        sa.Column("area_fraction", sa.Double(), nullable=True),
        sa.Column("tracking_uid", sa.String(length=64), server_default="", nullable=False),
        sa.Column("similar", sa.JSON(), nullable=True),
        sa.Column("side", sa.String(length=8), server_default="", nullable=False),
        sa.Column("zones", sa.String(length=32), server_default="", nullable=False),
        sa.Column("lung_share", sa.Double(), nullable=True),
        sa.Column("lesions", sa.JSON(), nullable=True),
        sa.Column("placed_by", sa.Text(), server_default="", nullable=False),
        sa.Column("lungs_by", sa.Text(), server_default="", nullable=False),
        sa.Column("superseded", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_findings_job_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_findings_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_findings"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_findings_job_id", "findings", ["job_id"], unique=False)
    op.create_index("ix_findings_study_id", "findings", ["study_id"], unique=False)


def _create_results() -> None:
    op.create_table(
        "results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_results_job_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_results_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_results"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_results_sop_instance_uid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_results_job_id", "results", ["job_id"], unique=False)
    op.create_index("ix_results_study_id", "results", ["study_id"], unique=False)


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("result_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), server_default="", nullable=False),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("due_at", MOMENT, nullable=True),
        sa.Column("dispatched_at", MOMENT, nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("on_hold_with_study", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("sent_at", MOMENT, nullable=True),
        sa.Column("verified_at", MOMENT, nullable=True),
        sa.Column("verify_due_at", MOMENT, nullable=True),
        sa.Column("verify_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("verify_missing", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=True),
        sa.Column("lost", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("refused", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("unanswered", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("stale_code", sa.String(length=16), server_default="", nullable=False),
        sa.Column("note_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["destination"], ["destinations.name"], name="fk_deliveries_destination"),
        sa.ForeignKeyConstraint(["result_id"], ["results.id"], name="fk_deliveries_result_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_deliveries_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("result_id", "destination", name="uq_deliveries_result_id_destination"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_deliveries_sent_at",
        "deliveries",
        ["sent_at"],
        unique=False,
        sqlite_where=sa.text("sent_at IS NOT NULL"),
        postgresql_where=sa.text("sent_at IS NOT NULL"),
    )
    op.create_index(
        "ix_deliveries_stale",
        "deliveries",
        ["study_id"],
        unique=False,
        sqlite_where=sa.text("stale_code <> '' AND note_id IS NULL"),
        postgresql_where=sa.text("stale_code <> '' AND note_id IS NULL"),
    )
    op.create_index("ix_deliveries_state_dispatched_at", "deliveries", ["state", "dispatched_at"], unique=False)
    op.create_index("ix_deliveries_study_id_state", "deliveries", ["study_id", "state"], unique=False)
    op.create_index(
        "ix_deliveries_verify_due_at",
        "deliveries",
        ["verify_due_at"],
        unique=False,
        sqlite_where=sa.text("verify_due_at IS NOT NULL"),
        postgresql_where=sa.text("verify_due_at IS NOT NULL"),
    )


def _create_feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("finding_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["finding_id"], ["findings.id"], name="fk_feedback_finding_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_feedback_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
    )
    op.create_index("ix_feedback_finding_id", "feedback", ["finding_id"], unique=False)
    op.create_index("ix_feedback_study_id", "feedback", ["study_id"], unique=False)


def _create_assessments() -> None:
    op.create_table(
        "assessments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("referenced_uid", sa.String(length=64), nullable=False),
        sa.Column("tracking_uid", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("observer", sa.Text(), nullable=False),
        sa.Column("feedback_id", sa.Integer(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["feedback_id"], ["feedback.id"], name="fk_assessments_feedback_id"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_assessments_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_assessments"),
        sa.UniqueConstraint("sop_instance_uid", "ordinal", name="uq_assessments_sop_instance_uid_ordinal"),
    )
    op.create_index("ix_assessments_study_id", "assessments", ["study_id"], unique=False)


def _create_erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_erasures_study_id"),
        sa.PrimaryKeyConstraint("study_id", name="pk_erasures"),
    )
    op.create_table(
        "erased_studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_erased_studies"),
    )
    op.create_table(
        "erased_files",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_erased_files"),
    )
