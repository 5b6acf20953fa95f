"""What a measurement is worth knowing about: the machine and the month."""

import datetime
import os
import platform
from pathlib import Path


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def cpu_code():
    """Family and model: a virtual machine's name for its CPU may say nothing."""
    fields = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition(":")
        fields.setdefault(name.strip(), text.strip())
    return f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"


def describe_machine():
    return {"cpu": f"{cpu_model()} ({cpu_code()})", "cpus": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2), "python": platform.python_version(),
            "month": datetime.date.today().strftime("%Y-%m")}
