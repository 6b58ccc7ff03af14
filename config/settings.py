"""Every setting of a node: one frozen tree, validated once when a process starts.

Values come, in rising precedence, from the defaults below, one TOML file (``--config`` or ``PLEURA_CONFIG``) and the
environment (``PLEURA_LISTENER__PORT=11112``: two underscores go one level down; ``_FILE`` at the end of a secret's name
says which file holds it, see :mod:`config.secret`). Nothing else reads the environment,
and only composition roots call :func:`load`; other code gets the part that it needs as an argument.

The table in ``docs/configuration.md`` is made from the descriptions here, and a test fails where the two differ.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from config.archives import Backfill, Priors
from config.audit import Audit
from config.deidentification import Deidentification
from config.destinations import Destination
from config.dicomweb import DicomWebServer
from config.environment import PREFIX, meant, misspelt, with_secrets_read
from config.file import mistakes, read_toml, resolve_paths
from config.hl7 import HL7
from config.listener import Listener
from config.notifications import Notifications
from config.openid import OpenID
from config.routing import RoutingRule, check_rules
from config.secret import Secret
from config.section import Part as _Part
from config.section import Port
from config.servers import Broker, Database, with_password
from config.tls import Tls
from config.traces import Traces
from config.triage import Triage
from config.value_types import IssuerName, Network, Pattern, TimeZone, UIDRoot, ViewerURL, uri_of

CONFIG_VARIABLE = "PLEURA_CONFIG"
MAXIMUM_SOCKET_PATH = 107


class SettingsError(ValueError):
    """The configuration cannot be used; the message names each key, what is wrong and what is allowed."""


class Site(_Part):
    """The site that runs this node: written into every object that it makes."""

    name: str = ""
    """Institution name written into results; empty: the source image's own is kept."""
    uid_root: UIDRoot = "2.25"
    """Root of the UIDs of our objects. An organisation's own root, or 2.25 (UUID-derived, PS3.5 B.2)."""
    station_name: str = Field(default="PLEURA", max_length=16)
    """Station Name (0008,1010) of our objects."""
    time_zone: TimeZone = "UTC"
    """Time zone (IANA name, such as Europe/Berlin) of the times that people read: in results (unless the image declares
    another), on the page, in e-mails and HL7 reports, in the CSV export and in what commands print. JSON is in UTC."""
    language: Literal["en", "de"] = "en"
    """Language of the page where the browser asks for none that the page has. Users can choose their own."""
    patient_id_issuers: tuple[IssuerName, ...] = ()
    """Names of this site's own issuer of patient IDs (Issuer of Patient ID in images, PID-3.4 in HL7). A patient ID
    without an issuer belongs to it, and the same ID of another issuer is another patient. Empty: a patient ID without
    an issuer matches only those without one."""
    placeholder_patient_ids: tuple[Pattern, ...] = (
        r"\W*", r"0+", r"9{3,}", r"x{2,}",
        r"(unknown|unk|none|null|n/?a|no ?id|anon(ymous)?|test|temp|dummy|trauma|emergency)\W*\d?",
        r"(unbekannt|anonym|notfall|inconnue?|anonyme|desconocid[oa]|sconosciut[oa])\W*\d?",
    )  # fmt: skip
    """Regular expressions (case is ignored) for whole patient IDs that identify nobody. Studies under such an ID are
    no priors of each other, and no HL7 message corrects or merges them."""

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of what people read, whatever the clock of a machine or container is set to."""
        return ZoneInfo(self.time_zone)


class Store(_Part):
    """Where received files and results are kept."""

    folder: Path = Path("var")
    """Folder of the node's data: instances, results, the SQLite database and the embedded broker. As every path in the
    configuration file, it is relative to that file."""
    minimum_free_bytes: int = Field(default=1024**3, ge=0)
    """With less free space than this, C-STORE is answered with 0xA700."""
    keep_days: int = Field(default=30, ge=0)
    """Received files and results of complete, delivered studies are removed after this many days; 0 keeps them."""


class Eligibility(_Part):
    """Which images are analysed. Every other image is kept as not eligible, with a code and a sentence."""

    modalities: tuple[str, ...] = ("CR", "DX")
    """Values of Modality (0008,0060) that are analysed; a Secondary Capture must carry one of them too."""
    body_parts: tuple[str, ...] = ("CHEST", "THORAX", "LUNG", "CHEST_PORTABLE", "PORT CHEST")
    """Values of Body Part Examined (0018,0015) that mean a chest, beside the words for it in common languages."""
    descriptions: tuple[Pattern, ...] = (r"\bchest\b", r"\bthora", r"\blung", r"\bCXR\b")
    """Regular expressions (case is ignored) that mean a chest, where Body Part Examined is empty, beside the words for
    it in common languages."""
    unknown_body_part: Literal["analyse", "refuse"] = "analyse"
    """Where neither body part nor description says anything: analyse (the gate checks the pixels), or refuse."""
    views: tuple[str, ...] = ("PA", "AP")
    """Views that are analysed. PA and AP stand for every word for them in View Position (0018,5101), both for FRONTAL
    too; a word for another view (decubitus, lordotic, oblique, lateral) outweighs them. Where it is empty, the
    gate decides by the pixels."""
    minimum_age_years: float = Field(default=18, ge=0)
    """Younger patients are not analysed."""
    unknown_age: Literal["analyse", "refuse"] = "analyse"
    """What to do where neither Patient's Age nor Patient's Birth Date gives the age."""
    minimum_pixels: int = Field(default=512, ge=64)
    """Rows and Columns must both reach this."""


class Workers(_Part):
    """How jobs and deliveries run."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where networks run. gpu: all of them on a GPU, ONNX files with onnxruntime-gpu, Keras files with TensorFlow, the
    bundled ones with either; a worker that cannot do so does not start. auto: on a GPU where one is there and an
    installed library can use it, else on the CPU; log, doctor and system page say which."""
    threads: int = Field(default=0, ge=0)
    """CPU threads for one network; 0 takes all cores."""
    processes: int = Field(default=0, ge=0, le=32)
    """Processes of an analysis worker, each with the networks in memory (0.4 GB). 0: two on the CPUs of a machine with
    several cores, so that one reads and writes while the other predicts; one on a GPU."""
    batch: int = Field(default=0, ge=0, le=8)
    """Waiting images that go through the networks together where at least twice as many wait: STAT ones and those that
    were tried before never do. 0: 8 on a GPU, 1 on the CPU, where it gains nothing."""
    maximum_pixels: int = Field(default=64_000_000, ge=1_000_000)
    """Images of more pixels are not analysed; the size that header and code stream claim counts, before decoding. An
    image of this size takes about a gigabyte of memory; the largest detectors have half as many pixels."""
    job_memory_bytes: int = Field(default=4 * 1024**3, ge=0)
    """Memory that a worker's child may take beside its networks; a job that needs more is tried again, and then failed.
    Set it with maximum_pixels. 0: no limit."""
    job_timeout_seconds: float = Field(default=120, gt=0)
    """A job that runs longer is stopped with its process, and tried again."""
    attempts: int = Field(default=4, ge=1)
    """Attempts at a job or a delivery before it is marked as failed."""
    backoff_seconds: float = Field(default=5, gt=0)
    """Wait before the second attempt; it doubles with each further one."""
    maximum_backoff_seconds: float = Field(default=300, gt=0)
    """The doubling stops at this wait."""
    unreachable_attempts: int = Field(default=200, ge=1)
    """Attempts at a delivery whose destination cannot be reached, hangs, has no room (status 0xA7xx) or is in
    trouble (0x0110, or 5xx of a web server): enough for a night."""
    scheduler_interval_seconds: float = Field(default=1, gt=0)
    """Pause between two rounds of the scheduler: stable studies, lost messages, late jobs."""
    reenqueue_after_seconds: float = Field(default=30, gt=0)
    """A job or delivery that no worker has taken for so long is enqueued again, unless its message still waits."""
    late_job_after_seconds: float = Field(default=600, gt=0)
    """A job older than this is reported in the log and the worklist."""


class Models(_Part):
    """Which models analyse an image."""

    folder: Path | None = None
    """Folder of manifests (*.toml) beside the bundled ones."""
    gate: str = "chest-gate"
    """Model that checks whether this is a whole, upright, frontal chest radiograph; empty: only the checks without a
    network."""
    lungs: str = "chest-lungs"
    """Model that says where both lungs are: masks of findings in the lungs are clipped to them, and get a side and a
    zone. Empty: masks stay as they are drawn, and a side follows from the middle of the image."""
    active: tuple[str, ...] = ("chest-classifier", "chest-opacity")
    """Models whose findings are delivered (labels that the manifest keeps in shadow stay in shadow)."""
    shadow: tuple[str, ...] = ()
    """Models that run beside them; their findings are stored and never sent."""
    gpu: tuple[str, ...] = ()
    """Models of these that need a GPU, at a site that has machines with one and others without. Jobs in which one of
    them runs wait in the queue jobs.gpu, all others in jobs.cpu, and workers take one of the two (docs/scaling.md).
    Empty: every worker takes every job."""
    after: dict[str, str] = Field(default_factory=dict)
    """Models that run only where an earlier one finds something: `after.my-unet = "chest-classifier/pneumothorax"`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that is named, the gate first."""
        return tuple(name for name in (self.gate, self.lungs, *self.active, *self.shadow) if name)


class Results(_Part):
    """What is made of a prediction."""

    sr_storage: Literal["comprehensive-3d", "comprehensive"] = "comprehensive-3d"
    """Storage class of the Structured Report (PS3.3 A.35)."""
    seg_storage: Literal["binary", "fractional"] = "binary"
    """Segmentation Type (0062,0001): binary is one bit a pixel, which most viewers know. Frames then follow each other
    without a gap, and Orthanc gives OHIF none that begins within a byte. With fractional such a segmentation (several
    segments, rows times columns no multiple of 8) has one byte a pixel, 0 or 255; all others stay binary."""
    series_number_base: int = Field(default=9000, ge=1)
    """First Series Number of our series; high, so that a viewer sorts them behind the originals."""
    late_after_hours: float = Field(default=0, ge=0)
    """Results for a study older than this are recorded, not sent; 0 always sends."""
    capture_negatives: bool = True
    """Whether an image on which nothing was found gets a capture too, where a destination takes captures (sc): some
    viewers show a report without an outline as a black pane."""
    after_report: Literal["send", "record"] = "record"
    """What happens to results for a study that is marked as reported: send them, or record and not send them."""
    priors: Literal["send", "record"] = "record"
    """What happens to results for a study that was only pulled to be compared with ([priors])."""


class Admin(_Part):
    """The admin page: a web page and a JSON API."""

    enabled: bool = True
    """Start the admin page with `pleura serve`."""
    host: str = "127.0.0.1"
    """Address to bind. Give it a certificate, or put a reverse proxy with TLS in front, before others may reach it."""
    port: Port = 8080
    """TCP port; 0 takes a free one and prints it."""
    tls_certificate: Path | None = None
    """PEM file with the certificate of the page, and after it those of the CAs between it and the root; with it the
    page is served by HTTPS alone. A renewed file is used without a restart."""
    tls_key: Path | None = None
    """PEM file with its key, without a passphrase; empty: the key is in the same file."""
    hsts_seconds: int = Field(default=31_536_000, ge=0)
    """Browsers that came by HTTPS, to the page itself or to a trusted proxy, are told to use nothing else at this host
    name, whatever the port, for so long (Strict-Transport-Security); 0: they are not told."""
    hide_patient_names: bool = False
    """Show no patient names on the page and in the API; patient ID and accession number stay."""
    viewer_url: ViewerURL = ""
    """Address of a study in the site's own viewer, with {study_uid} for its Study Instance UID, such as
    https://pacs.example/viewer?StudyInstanceUIDs={study_uid}; the page of a study links there. Empty: no link."""
    session_hours: float = Field(default=12, gt=0, le=168)
    """A session ends after this time."""
    trusted_proxies: tuple[Network, ...] = ()
    """IP addresses or networks (CIDR) of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted."""
    sign_on_header: str = Field(default="", pattern=r"^[A-Za-z0-9-]*$")
    """Header in which a trusted proxy names the user that it has authenticated, such as X-Remote-User; empty: none."""
    sign_on_new_users: Literal["refuse", "viewer", "radiologist"] = "refuse"
    """Role of a user whom the proxy names and this node does not know yet; refuse gives none."""
    metrics_token: Secret | None = None
    """Bearer token for /metrics; empty: only this machine may read it."""
    upload_minutes: float = Field(default=15, gt=0, le=1440)
    """An image given to "Try it" is kept in memory this long, and written to no file (the system may swap it out)."""
    upload_bytes: int = Field(default=128 * 1024 * 1024, ge=1024)
    """A larger file is refused by "Try it"."""
    connections_per_address: int = Field(default=100, ge=4, le=500)
    """Connections from one address at a time (IPv6: from one /64 network); trusted proxies may hold more."""
    header_timeout_seconds: float = Field(default=10, gt=0, le=300)
    """A connection without a whole request header is closed after this time."""
    openid: OpenID = OpenID()


class Logs(_Part):
    """What is written to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level written."""
    format: Literal["text", "json"] = "text"
    """text: lines for people; json: one JSON object a line."""


class Settings(BaseSettings):
    """The whole configuration of a node."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    site: Site = Site()
    listener: Listener = Listener()
    dicomweb: DicomWebServer = DicomWebServer()
    tls: Tls = Tls()
    store: Store = Store()
    eligibility: Eligibility = Eligibility()
    database: Database = Database()
    broker: Broker = Broker()
    workers: Workers = Workers()
    models: Models = Models()
    results: Results = Results()
    destinations: tuple[Destination, ...] = ()
    routing: tuple[RoutingRule, ...] = ()
    triage: Triage = Triage()
    backfill: Backfill = Backfill()
    priors: Priors = Priors()
    admin: Admin = Admin()
    hl7: HL7 = HL7()
    notifications: Notifications = Notifications()
    deidentification: Deidentification = Deidentification()
    traces: Traces = Traces()
    audit: Audit = Audit()
    logs: Logs = Logs()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError("destinations: two of them have the same name")
        if not (*self.models.active, *self.models.shadow):
            raise ValueError("models: neither active nor shadow names a model; each study would read like a negative")
        both = set(self.models.active) & set(self.models.shadow)
        if both:
            raise ValueError(f"models: {', '.join(sorted(both))} cannot be both active and in shadow")
        for name, asked in self.models.after.items():
            if asked.count("/") != 1 or asked.startswith("/") or asked.endswith("/"):
                raise ValueError(f"models.after.{name}: must be MODEL/LABEL, not '{asked}'")
        check_rules(self.routing, names, (*self.models.active, *self.models.shadow), self.models.after)
        self._check_queues()
        self._check_ports()
        self._check_tls()
        self._check_deidentification()
        self._check_lungs()
        self._check_backfill()
        self._check_patient_systems()
        if self.admin.sign_on_header and not self.admin.trusted_proxies:
            raise ValueError("admin.sign_on_header: name the proxies that may send it in admin.trusted_proxies")
        return self

    def _check_queues(self) -> None:
        """The queue decides on which device networks run, where there are two queues."""
        for name in self.models.gpu:
            if name not in (*self.models.active, *self.models.shadow):
                raise ValueError(f"models.gpu: '{name}' is neither in models.active nor in models.shadow")
        if self.models.gpu and self.workers.device != "auto":
            raise ValueError(
                f"models.gpu lets the queue of a worker choose its device, so workers.device cannot be"
                f" {self.workers.device}: leave it out, or leave out models.gpu"
            )

    def _check_ports(self) -> None:
        """No two parts of a node listen on the same port; 0 is a free one."""
        ports = {f"listener.{key}": port for key, port in self.listener.ports.items()}
        ports |= {"admin.port": self.admin.port} if self.admin.enabled else {}
        ports |= {"hl7.port": self.hl7.port} if self.hl7.enabled else {}
        ports |= {"dicomweb.port": self.dicomweb.port} if self.dicomweb.enabled else {}
        for (one, port), (other, same) in combinations(ports.items(), 2):
            if port == same != 0:
                raise ValueError(f"{one} and {other} are both {port}; give each part a port of its own")

    def _check_deidentification(self) -> None:
        """No destination is configured to which nothing can ever go."""
        if self.deidentification.key is None:
            for destination in self.destinations:
                if destination.kind == "deidentified":
                    raise ValueError(f"destination `{destination.name}`: deidentification.key is not set")

    def _check_lungs(self) -> None:
        """No destination waits for lungs that nothing looks for."""
        for destination in self.destinations:
            if "lungs" in destination.kinds and not self.models.lungs:
                raise ValueError(f"destination `{destination.name}`: kinds: 'lungs' needs models.lungs")

    def _check_tls(self) -> None:
        """TLS needs its files, and a peer whose certificate is named a port where it can show it."""
        if self.listener.has_tls and (self.tls.certificate is None or self.tls.ca is None):
            raise ValueError(f"listener.transport is {self.listener.transport}: set tls.certificate and tls.ca, too")
        if self.tls.crl is not None and self.tls.ca is None:
            raise ValueError("tls.crl: set tls.ca, whose certificates it revokes")
        for peer in self.listener.peers:
            if peer.certificates and not self.listener.has_tls:
                raise ValueError(f"listener.peer `{peer.ae_title}`: certificates need listener.transport tls or both")
        for destination in self.destinations:
            if destination.tls and self.tls.ca is None:
                raise ValueError(f"destination `{destination.name}`: tls needs tls.ca")
            if destination.certificates and not destination.tls:
                raise ValueError(f"destination `{destination.name}`: certificates need tls = true")

    def _check_backfill(self) -> None:
        archive = self.backfill.archive
        peer = self.destination(archive)
        if archive and (peer is None or peer.kind != "dimse"):
            raise ValueError(f"backfill.archive: there is no destination '{archive}' of kind 'dimse'")
        if self.backfill.daily_at and not archive:
            raise ValueError("backfill.daily_at: name the destination to search in backfill.archive")
        prior = self.destination(self.priors.archive)
        if self.priors.archive and (prior is None or prior.kind != "dimse"):
            raise ValueError(f"priors.archive: there is no destination '{self.priors.archive}' of kind 'dimse'")

    def _check_patient_systems(self) -> None:
        """A patient ID without a system could be that of another hospital."""
        universal = any(map(uri_of, self.site.patient_id_issuers))
        for each in self.destinations:
            if each.kind == "fhir" and not universal and not each.patient_id_system:
                needed = "patient_id_system, or an OID or a URI among site.patient_id_issuers"
                raise ValueError(f"destination `{each.name}`: set {needed}")

    def destination(self, name: str) -> Destination | None:
        """The destination of that name, None where the configuration has none (any more)."""
        return next((each for each in self.destinations if each.name == name), None)

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database in use."""
        if self.database.url is not None:
            return with_password(self.database.url, self.database.password)
        return f"sqlite:///{(self.store.folder / 'pleura.sqlite').absolute()}"

    @property
    def broker_socket(self) -> Path:
        """Unix socket of the embedded broker: in the store folder, or beside it in the system's temporary folder.

        The kernel takes 107 bytes for the path of a socket (unix(7)).
        """
        path = (self.store.folder / "broker.sock").absolute()
        if len(os.fsencode(path)) <= MAXIMUM_SOCKET_PATH:
            return path
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"pleura-{os.getuid()}-{digest}" / "broker.sock"

    @property
    def broker_url(self) -> str:
        """Celery broker URL in use."""
        return self.broker.url_in_use() or f"redis+socket://{self.broker_socket}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the environment, then from the file that :func:`load` has read. Used by pydantic."""
        del dotenv_settings, file_secret_settings
        if isinstance(env_settings, EnvSettingsSource):
            read = with_secrets_read(env_settings.env_vars, settings_cls)
            env_settings.env_vars = {name.lower(): value for name, value in read.items()}
        return env_settings, init_settings


def load(path: Path | None = None) -> Settings:
    """Read the settings of this process: defaults, the TOML file at ``path`` or ``$PLEURA_CONFIG``, the environment.

    Raises:
        SettingsError: the file is missing or not TOML, a key is unknown or a value is out of range.
    """
    named = path or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None and not named.is_file():
        raise SettingsError(
            f"configuration file {named} does not exist; write one (config/default.toml shows every key)"
        )
    values = read_toml(named, SettingsError) if named is not None else {}
    if (name := misspelt(os.environ, Settings, frozenset({CONFIG_VARIABLE}))) is not None:
        raise SettingsError(f"environment variable {name} names no setting; {meant(name, Settings)}")
    if named is not None:
        values = resolve_paths(values, Settings, named.parent.resolve())
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(mistakes(error, Settings, values)) from error
    except ValueError as error:
        raise SettingsError(str(error)) from error
