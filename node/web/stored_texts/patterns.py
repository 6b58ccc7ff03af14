"""Sentences with values in them that other rooms write in English, listed as :mod:`.words` are."""

from __future__ import annotations

from node.web.translatable import gettext_noop

PATTERNS = (
    # Log-in by OpenID Connect; the reasons in brackets are those of the provider or a library.
    gettext_noop("{all_problem}. If you have a password on this node, log in with it."),
    gettext_noop("{provider} does not answer ({all_reason})"),
    gettext_noop("{provider} answers with status {number}"),
    gettext_noop("{provider} does not log you in ({all_reason})"),
    gettext_noop("{provider} refuses this node ({all_reason})"),
    gettext_noop("{provider} sent an ID token that is not valid ({all_reason})"),
    gettext_noop("{provider} sends no claim {claim}: you are in no group, or it has to be told to send them"),
    gettext_noop("{provider} sends no claim {claim}: set admin.openid.name_claim"),
    gettext_noop(
        "you are in more groups than {provider} sends; an administrator maps roles of this application instead"
    ),
    gettext_noop("the user {name} is locked on this node; ask an administrator"),
    gettext_noop(
        "this node has another user {name}; if that is you, an administrator runs `pleura user change NAME --sign-on`"
    ),
    # What became of a result, and why a finding is present
    gettext_noop("follows from {finding}"),
    gettext_noop("Revision {number} replaces it: it must be removed there."),
    gettext_noop("Revision {number} replaces it: it may have arrived, and then it must be removed there."),
    gettext_noop("{all_reason} It was sent before and must be corrected there."),
    gettext_noop("The hospital has corrected this patient ({what}): results carry what was known before."),
    gettext_noop("and {number} more: see the history"),
    gettext_noop("{all_reason} The result had been sent and must be removed there."),
    # What an entry of the audit trail is about
    gettext_noop("finding {number}"),
    # Triage. A number takes digits alone; any other value is translated itself.
    gettext_noop("the hospital's own priority is {priority}"),
    gettext_noop("{finding} {number}%, known since the film of {day}"),
    gettext_noop("{finding} {number}%"),
    gettext_noop("{finding}, known since the film of {day}"),
    gettext_noop("sent in later, the study is of {day}"),
    gettext_noop("waiting for {number} image"),
    gettext_noop("waiting for {number} images"),
    gettext_noop("the analysis of {number} image failed"),
    gettext_noop("the analysis of {number} images failed"),
    gettext_noop("no chest radiograph: {all_reasons}"),
    gettext_noop("no image could be analysed: {all_reasons}"),
    gettext_noop("{number} image not analysed: {all_reasons}"),
    gettext_noop("{number} images not analysed: {all_reasons}"),
    # What the system page checks, and what a fault does to studies
    gettext_noop(
        "Images are received and stored. They are analysed, and results sent, once it answers. Nothing is lost."
    ),
    gettext_noop("Images are received and stored; they wait and are not analysed."),
    gettext_noop("no worker takes {name}"),
    gettext_noop("a job has waited for {number} min: no worker takes {name} ({number_waiting} waiting)"),
    gettext_noop("start {command} or {other} on a machine with a GPU; where it runs, its log says why it ended"),
    gettext_noop("start {command} or {other}; where it runs, its log says why it ended"),
    gettext_noop("{folder} cannot be written: images are refused with 0xA700, and their senders try again"),
    gettext_noop(
        "{folder} is on a file system that is read-only: images are refused with 0xA700, and their senders try again"
    ),
    gettext_noop("see the system's log (`dmesg`) for errors of the disk, then mount it writable again"),
    gettext_noop("make it writable for this user, or set store.folder"),
    gettext_noop("{folder} has no folder instances: the store is away: is its file system mounted?"),
    gettext_noop(
        "{free} GB free in {folder}, less than store.minimum_free_bytes ({least} GB):"
        " images are refused with 0xA700, and their senders try again"
    ),
    gettext_noop("free some space, or lower store.keep_days"),
    gettext_noop("{number} files are set aside"),
    gettext_noop("send those images again, then empty {folder}"),
    gettext_noop("{setting}: a {what} in {path} ends in {number} days, on {day}"),
    gettext_noop("{setting}: a {what} in {path} ends within a day, on {day}"),
    gettext_noop("{setting}: a {what} in {path} has expired, on {day}"),
    gettext_noop("Whoever checks it refuses the connection: images, results or log-ins do not get through."),
    gettext_noop("certificate"),
    gettext_noop("list"),
    gettext_noop("renew it; the new file is used without a restart"),
    gettext_noop("Redis at {where}: {why}"),
    gettext_noop("it does not accept the password"),
    gettext_noop("correct user and password in broker.url"),
    gettext_noop("it has no database of that number"),
    gettext_noop("correct the number at the end of broker.url"),
    gettext_noop("it is a read-only replica"),
    gettext_noop("name the primary server in broker.url"),
    gettext_noop("it takes no more messages"),
    gettext_noop("free its disk and memory, see its log"),
    gettext_noop("no Sentinel knows a primary of this name"),
    gettext_noop("start Sentinel, or correct broker.url"),
    gettext_noop("it is still loading its data"),
    gettext_noop("wait a moment"),
    gettext_noop("its certificate is for another name"),
    gettext_noop("correct the host in broker.url"),
    gettext_noop("its certificate is not of the CA in ssl_ca_certs"),
    gettext_noop("name its CA in broker.url: ?ssl_ca_certs=/path/ca.pem"),
    gettext_noop("its certificate has expired"),
    gettext_noop("renew it at the server"),
    gettext_noop("it asks for a certificate of this node"),
    gettext_noop("name it in broker.url: &ssl_certfile=/path/node.pem&ssl_keyfile=/path/node.key"),
    gettext_noop("it speaks no TLS on this port"),
    gettext_noop("correct the port in broker.url"),
    gettext_noop("no TLS with it"),
    gettext_noop("correct the files in broker.url"),
    gettext_noop("it ends the connection"),
    gettext_noop("perhaps it speaks TLS on this port: write rediss:// in broker.url"),
    gettext_noop("its host name cannot be resolved"),
    gettext_noop("nothing listens there"),
    gettext_noop("start Redis, or correct broker.url"),
    gettext_noop("it does not answer"),
    gettext_noop("check the server and the network"),
    gettext_noop("it does not speak Redis"),
    gettext_noop("is this a Redis? Correct broker.url"),
    gettext_noop("broker.url cannot be read: {error}"),
    gettext_noop("write redis://:password@host:6379/0 in broker.url"),
    gettext_noop("{word_setting} of broker.url cannot be read"),
    gettext_noop("broker.server: {file} is not an executable file"),
    gettext_noop("set broker.url to a Redis, or broker.server to a redis-server"),
    gettext_noop("The node does not start."),
    gettext_noop("{all_error}; without it no worker can start, and images wait"),
    gettext_noop("put the file back (a backup, `pleura models add`, or the package again), or correct models.folder"),
    gettext_noop("correct models.gate, models.lungs, models.active or models.shadow"),
    gettext_noop("there is no model {name}; did you mean {other}?"),
    gettext_noop("there is no model {name}; the manifests name: {names}"),
    gettext_noop("{setting}: {path} is valid from {day} only"),
    gettext_noop("compare the clocks of this machine and of the CA"),
    gettext_noop("correct {setting}, or write that file"),
    # Priors
    gettext_noop("{destination} cannot be searched for a prior: {error}"),
    # Routing rules
    gettext_noop("Routing rule {rule} stores it without analysis: {reason}."),
    gettext_noop("calling AE title {value}"),
    gettext_noop("called AE title {value}"),
    gettext_noop("station name {value}"),
    gettext_noop("institution {value}"),
    gettext_noop("modality {value}"),
    gettext_noop("body part {value}"),
    gettext_noop("study description {value}"),
    gettext_noop("series description {value}"),
    gettext_noop("sex {value}"),
    gettext_noop("view {value}"),
    gettext_noop("age {value}"),
    # Headers
    gettext_noop("{kind} is not an image; it is stored and not analysed."),
    gettext_noop("{kind} is not a radiograph that Pleura analyses."),
    gettext_noop("Modality is {modality}; analysed are {modalities}."),
    gettext_noop("Conversion Type says that this is {kind}, not a radiograph."),
    gettext_noop("The image is not grayscale ({photometric})."),
    gettext_noop("The image has {number} frames; only single frames are analysed."),
    gettext_noop(
        "The image has {number_columns} x {number_rows} pixels; the minimum is {number_least} in each direction."
    ),
    gettext_noop("Body Part Examined is {part}, not a chest."),
    gettext_noop("The coded region is {part}, not a chest."),
    gettext_noop("The description names {part}, not a chest."),
    gettext_noop("View Position is {view}, not a frontal view."),
    gettext_noop("View Position is {view}, not a frontal view that is analysed."),
    gettext_noop("The coded view is {view}, not a frontal view."),
    gettext_noop("The description names a {view} view."),
    gettext_noop("The patient is younger than {number} years."),
    # Pixels
    gettext_noop("The image has fewer than {number} rows or columns."),
    gettext_noop("One side of the image is more than {number} times the other."),
    gettext_noop("There is no decoder for the transfer syntax {syntax}."),
    # Log-in and accounts
    gettext_noop("a password has {number_least} to {number_most} characters"),
    gettext_noop("there is a user {name} already"),
    gettext_noop("a name has 1 to {number} characters"),
    gettext_noop("{number} filters are saved already; delete one first"),
    gettext_noop("too many failed log-ins; try again in {number} minutes"),
    gettext_noop("this needs the role {needed}; your role is {role}"),
    gettext_noop("the request is larger than {number} bytes"),
    # Advice
    gettext_noop("Let {title} call {own}, not {called}."),
    gettext_noop("Let {title} call {own}, not {called}; add it to the configuration too."),
    gettext_noop("Add {address} to the addresses of the [[listener.peers]] with ae_title = {title}."),
    gettext_noop("Find out why so many are open at a time, or raise {name} ({number} now)."),
    gettext_noop("Let {title} call by TLS, on port {number}: its [[listener.peers]] names certificates."),
    gettext_noop(
        "If {title} has a new certificate, add its name or fingerprint, which the log of the listener "
        "tells, to the certificates of its [[listener.peers]]."
    ),
    gettext_noop("{measure}, median and quartiles"),
    # Where a destination is
    gettext_noop("{word_title} at {word_host}:{number}"),
    gettext_noop("folder {word_path}"),
    # Actions
    gettext_noop("{entity} {number} is {state} and cannot become {wanted}"),
    gettext_noop("there is no {entity} {number}"),
    gettext_noop("study {number} is held ({reason}); release it first"),
    gettext_noop("study {number} is not on hold"),
    gettext_noop("Initial password of {name}"),
    gettext_noop("Token {name}"),
    gettext_noop("The models cannot be used: {error}. Run `pleura doctor`."),
)
"""Sentences with values in braces, the more special before the more general."""
