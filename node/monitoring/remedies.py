"""Remedies for errors of jobs, deliveries and peers: one sentence each, for page, terminal and doctor."""

from __future__ import annotations

import re

from workers.tls import tls_remedy

_REMEDIES = (
    (
        r"model server .*manifest",
        "Bring the pinned model back on that server, or measure the new one and change the manifest; the jobs wait.",
    ),
    (
        r"the store (is away|cannot be used)|file cannot be read now",
        "Mount the file system of store.folder, or give it room and rights; what waits goes on by itself.",
    ),
    (r"model server", "Start the model server again, or correct [endpoint] in the manifest; the jobs wait for it."),
    (
        r"was (switched off|put in shadow)",
        "Run the job again without that model, or activate it on the system page and re-send.",
    ),
    (r"does not hold it", "Find out from the destination's log and quarantine why it drops this object; then re-send."),
    (
        r"calling AE title",
        "Register the AE title of this node at the destination, or set destinations[].calling_ae_title for it.",
    ),
    (r"refuses the credentials", "Correct destinations[].token, or user and password, of this destination."),
    (r"does not allow this node", "Give this node's user or token the right to store and search there."),
    (
        r"path of the URL",
        "Correct destinations[].url: it is the root of the services, such as https://pacs.example/dicom-web or"
        " https://his.example/fhir.",
    ),
    (r"called AE title", "Correct destinations[].ae_title of this destination."),
    (r"name cannot be resolved", "Correct destinations[].host of this destination, or the name service."),
    (
        r"answers no association request",
        "See that system's log and load, restart its DICOM service, or correct the port; what waits is sent then.",
    ),
    (
        r"refused|unreachable|cannot be reached|abort|connect|timed? ?out|no route|did not respond",
        "Check that the peer runs and that host and port are right.",
    ),
    (r"congest|limit of associations|limit exceeded", "The peer is busy; the delivery is retried automatically."),
    (
        r"cannot store it now|server answers with status 5",
        "The peer could not store it at that time; its log says why. The delivery is retried automatically.",
    ),
    (r"0x[aA]7|out of resources", "The peer is out of resources; free its disk, then re-send."),
    (
        r"0x[aA]9|0x[cC]|0x0122|does not accept this SOP class",
        "The peer does not accept this object; check its log and the result kinds configured for it.",
    ),
    (r"identif|patient", "Compare the patient in PACS and here, correct it, then release."),
    (r"time limit|stopped|too long", "Raise workers.job_timeout_seconds, or check the size of this image; then retry."),
    (r"memory", "Give the worker more memory; then retry."),
    (r"digest|model", "Run `pleura doctor`: a model file is missing or has changed."),
    (r"file|No such", "The image is no longer in the store; send it again from the PACS."),
)


def remedy(error: str) -> str:
    """Advice for an administrator about an error, in one sentence."""
    if (known := tls_remedy(error)) is not None:
        return known
    for pattern, advice in _REMEDIES:
        if re.search(pattern, error, re.IGNORECASE):
            return advice
    return "Retry once; if the error repeats, search the worker's log for the number of this job."
