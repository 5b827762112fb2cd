#!/usr/bin/env python3
"""Checks the files of examples/deploy against the programs and schemas that read them.

    python check_deploy.py

Kubernetes' own kinds are validated against its schemas, strictly (kubernetes-validate), the others against the fields below; units of systemd
by `systemd-analyze verify`, nginx' configuration by `nginx -t`, and options of Andiron by the program, where these are found. The files must
agree with each other: labels, ports, times to stop. The tasks of `prepare` are run as Slurm and Kubernetes would start them. Needs
kubernetes-validate, and no network. The program is the one that ANDIRON names, or `andiron` in the release folder of the target directory.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import jsonschema
import kubernetes_validate
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "clients"))

from server import ROOT, program  # noqa: E402

DEPLOY = ROOT / "examples/deploy"
KUBERNETES = "1.37"

#: A process ends at most so many seconds after its drain timeout.
GRACE = 2


def fields(required=(), **properties):
    """An object with these fields and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def listed(items, most=1000):
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
ANY = {"type": "object"}
METADATA = fields(["name"], name=TEXT, namespace=TEXT, labels=ANY, annotations=ANY)
DURATION = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}


def kind(version, name, spec):
    return fields(["apiVersion", "kind", "metadata", "spec"], apiVersion={"const": version}, kind={"const": name}, metadata=METADATA, spec=spec)


#: The kinds that Kubernetes does not have itself: what their definitions allow, as far as the files here could use it.
DEFINED = {
    # Gateway API inference extension 1.6.
    "InferencePool": kind("inference.networking.k8s.io/v1", "InferencePool", fields(
        ["selector", "targetPorts", "endpointPickerRef"],
        selector=fields(["matchLabels"], matchLabels={"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}),
        targetPorts=listed(fields(["number"], number=PORT), 8),
        appProtocol={"enum": ["http", "kubernetes.io/h2c"]},
        endpointPickerRef=fields(["name"], group=TEXT, kind=TEXT, name=TEXT, port=fields(["number"], number=PORT),
                                 failureMode={"enum": ["FailOpen", "FailClose"]}))),
    # Gateway API 1.6.
    "HTTPRoute": kind("gateway.networking.k8s.io/v1", "HTTPRoute", fields(
        parentRefs=listed(fields(["name"], group=TEXT, kind=TEXT, name=TEXT, namespace=TEXT, sectionName=TEXT, port=PORT), 32),
        hostnames=listed(TEXT, 16),
        rules=listed(fields(
            name=TEXT,
            matches=listed(fields(path=fields(type={"enum": ["Exact", "PathPrefix", "RegularExpression"]}, value=TEXT),
                                  headers=listed(ANY, 16), queryParams=listed(ANY, 16), method=TEXT), 64),
            filters=listed(ANY, 16),
            backendRefs=listed(fields(["name"], group={"type": "string"}, kind=TEXT, name=TEXT, namespace=TEXT, port=PORT, weight=COUNT), 16),
            timeouts=fields(request=DURATION, backendRequest=DURATION)), 16))),
    # KEDA 2.20.
    "ScaledObject": kind("keda.sh/v1alpha1", "ScaledObject", fields(
        ["scaleTargetRef", "triggers"],
        scaleTargetRef=fields(["name"], apiVersion=TEXT, kind=TEXT, name=TEXT, envSourceContainerName=TEXT),
        pollingInterval=COUNT, cooldownPeriod=COUNT, initialCooldownPeriod=COUNT, idleReplicaCount=COUNT,
        minReplicaCount=COUNT, maxReplicaCount=COUNT,
        fallback=fields(["failureThreshold", "replicas"], failureThreshold=COUNT, replicas=COUNT, behavior=TEXT),
        advanced=fields(restoreToOriginalReplicaCount={"type": "boolean"},
                        horizontalPodAutoscalerConfig=fields(name=TEXT, behavior=ANY), scalingModifiers=ANY),
        triggers=listed(fields(["type", "metadata"], type={"const": "prometheus"}, name=TEXT, useCachedMetrics={"type": "boolean"},
                               metricType={"enum": ["AverageValue", "Value"]}, authenticationRef=ANY,
                               # The values of a trigger are texts.
                               metadata=fields(["serverAddress", "query", "threshold"], serverAddress=TEXT, query=TEXT, threshold=TEXT,
                                               activationThreshold=TEXT, namespace=TEXT, ignoreNullValues={"enum": ["true", "false"]},
                                               timeout=TEXT, authModes=TEXT, unsafeSsl=TEXT))))),
    # Kubeflow Trainer 2.3.
    "TrainingRuntime": kind("trainer.kubeflow.org/v1alpha1", "TrainingRuntime", fields(
        ["template"],
        mlPolicy=fields(numNodes=COUNT, mpi=fields(numProcPerNode=COUNT, mpiImplementation={"enum": ["OpenMPI"]}, sshAuthMountPath=TEXT,
                                                   runLauncherAsNode={"type": "boolean"})),
        podGroupPolicy=ANY,
        template=fields(["spec"], metadata=ANY, spec=fields(
            ["replicatedJobs"],
            network=fields(enableDNSHostnames={"type": "boolean"}, subdomain=TEXT, publishNotReadyAddresses={"type": "boolean"}),
            successPolicy=fields(["operator"], operator={"enum": ["All", "Any"]}, targetReplicatedJobs=listed(TEXT)),
            failurePolicy=ANY, startupPolicy=ANY,
            replicatedJobs=listed(fields(["name", "template"], name=TEXT, template=ANY, replicas=COUNT, dependsOn=listed(ANY))))))),
    "TrainJob": kind("trainer.kubeflow.org/v1alpha1", "TrainJob", fields(
        ["runtimeRef"],
        runtimeRef=fields(["name"], name=TEXT, apiGroup=TEXT, kind={"enum": ["TrainingRuntime", "ClusterTrainingRuntime"]}),
        initializer=ANY, suspend={"type": "boolean"},
        trainer=fields(image=TEXT, command=listed(TEXT), args=listed(TEXT), env=listed(ANY), numNodes=COUNT, numProcPerNode=COUNT,
                       resourcesPerNode=ANY))),
    # MPI Operator 0.7.
    "MPIJob": kind("kubeflow.org/v2beta1", "MPIJob", fields(
        ["mpiReplicaSpecs"],
        slotsPerWorker=COUNT, sshAuthMountPath=TEXT, mpiImplementation={"enum": ["OpenMPI", "Intel", "MPICH"]},
        launcherCreationPolicy={"enum": ["AtStartup", "WaitForWorkersReady"]}, runLauncherAsWorker={"type": "boolean"},
        runPolicy=fields(cleanPodPolicy={"enum": ["All", "Running", "None"]}, ttlSecondsAfterFinished=COUNT, activeDeadlineSeconds=COUNT,
                         backoffLimit=COUNT, suspend={"type": "boolean"}, schedulingPolicy=ANY),
        mpiReplicaSpecs=fields(["Launcher"], **{role: fields(["template"], replicas=COUNT, template=ANY,
                                                            restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]})
                                                for role in ("Launcher", "Worker")}))),
}


def documents():
    """Every document of every YAML file, with the path."""
    for path in sorted(DEPLOY.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.relative_to(DEPLOY), document


def jobs_within(name, document):
    """The jobs and pods that a document of another kind describes, as documents of Kubernetes."""
    spec = document["spec"]
    if name == "TrainingRuntime":
        described = [job["template"]["spec"] for job in spec["template"]["spec"]["replicatedJobs"]]
    elif name == "MPIJob":
        described = [{"template": replica["template"]} for replica in spec["mpiReplicaSpecs"].values()]
    else:
        described = []
    return [{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "described"}, "spec": job} for job in described]


def check_manifests():
    found = {}
    for path, document in documents():
        name = document["kind"]
        try:
            if name in DEFINED:
                jsonschema.validate(document, DEFINED[name])
                for job in jobs_within(name, document):
                    kubernetes_validate.validate(job, KUBERNETES, strict=True)
            else:
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            sys.exit(f"{path}: {name}: {getattr(error, 'path', '')} {error.message}")
        found.setdefault(name, []).append(document)
        print(f"{path}: {name} is valid")
    return found


def check_agreement(found):
    """Labels, ports and times fit together."""
    for job in found["Job"]:
        [container] = job["spec"]["template"]["spec"]["containers"]
        of = [arg.split("=")[1] for arg in container["args"] if arg.startswith("--of=")]
        assert of == ([str(job["spec"]["completions"])] if job["spec"].get("completionMode") == "Indexed" else []), of
        [rule] = [rule["onExitCodes"] for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
        assert rule["containerName"] == container["name"]
    [deployment] = found["Deployment"]
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    [port] = container["ports"]
    labels = pod["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in found["Service"]]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in found["PodDisruptionBudget"] + found["InferencePool"]]
    assert all(selector.items() <= labels for selector in selectors), selectors
    for target in [each["spec"]["scaleTargetRef"] for each in found["HorizontalPodAutoscaler"] + found["ScaledObject"]]:
        assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}, target
    assert [p["number"] for pool in found["InferencePool"] for p in pool["spec"]["targetPorts"]] == [port["containerPort"]]
    assert f"--port={port['containerPort']}" in container["args"]
    probes = [container[f"{when}Probe"]["httpGet"] for when in ["startup", "readiness", "liveness"]]
    assert [probe["path"] for probe in probes] == ["/ready", "/ready", "/health"] and {probe["port"] for probe in probes} == {port["name"]}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}, mounts
    drain = int(option(container["args"], "--drain-timeout"))
    stop = container["lifecycle"]["preStop"]["sleep"]["seconds"] + drain + GRACE
    assert pod["spec"]["terminationGracePeriodSeconds"] > stop, stop
    [budget] = [each["spec"]["maxUnavailable"] for each in found["PodDisruptionBudget"]]
    assert 0 < budget < deployment["spec"]["replicas"]
    for scaler, least in [("HorizontalPodAutoscaler", "minReplicas"), ("ScaledObject", "minReplicaCount")]:
        assert all(each["spec"][least] > budget for each in found[scaler])
    print("labels, ports, probes and times to stop of the manifests agree")
    return container["args"]


def option(args, name):
    [value] = [arg.split("=", 1)[1] for arg in args if arg.startswith(name + "=")]
    return value


def unit_options():
    """The command line and the variables of the unit."""
    unit = (DEPLOY / "serving/systemd/andiron@.service").read_text()
    [command] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    drain = int(re.search(r"--drain-timeout (\d+)", command)[1])
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])
    assert stop > drain + GRACE, (stop, drain)
    lines = (DEPLOY / "serving/systemd/serve.env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return command.split()[1:], variables


def check_options(program, args, folder):
    """The program knows every option and variable."""
    command, variables = unit_options()
    command = [word.replace("%i", "1").replace("%d", str(folder)) for word in command]
    for words, environment in [(args, {}), (command, variables)]:
        ran = subprocess.run([program, *words, "--print-config"], env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True)
        assert ran.returncode == 0, (words, ran.stderr)
    print("the program knows the options of the Deployment and of the unit")


def check_prepare(program, folder):
    """The scripts of Slurm and the Job, each task in a process as the scheduler would start it: the same data as one process gives."""
    bin = folder / "bin"
    bin.mkdir()
    (bin / "andiron").symlink_to(pathlib.Path(program).resolve())
    for name in "abcde":
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{name} {n} {n * n}"}) + "\n" for n in range(40)))
    (folder / "pipeline.toml").write_text('[[source]]\nname = "all"\npaths = ["*.jsonl"]\n[tokenizer]\nkind = "char"\n')

    def run(command, **variables):
        environment = {"PATH": f"{bin}:/usr/bin:/bin", "HOME": str(folder), **variables}
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, (command, ran.stderr)

    def fingerprints(output):
        made = json.loads((folder / output / "prepare.json").read_text())
        return {part: json.loads((folder / output / part / "manifest.json").read_text()) for part in ["train", "valid"]}, made["documents"]

    run(["andiron", "prepare", "pipeline.toml", "--output", "whole"])
    slurm = {"PIPELINE": "pipeline.toml", "OUTPUT": "array", "SLURM_CPUS_PER_TASK": "1"}
    scripts = DEPLOY / "prepare"
    for task in ["2", "1", "3"]:
        ids = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "3"}
        run(["bash", str(scripts / "prepare.sbatch")], **slurm, **ids)
    # Some tasks again: `OF=3 sbatch --array=2`.
    ids = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_MAX": "2", "OF": "3"}
    run(["bash", str(scripts / "prepare.sbatch")], **slurm, **ids)
    run(["bash", str(scripts / "merge.sbatch")], **slurm)
    jobs = {name: yaml.safe_load((scripts / f"{name}.yaml").read_text())["spec"] for name in ["job", "job-merge"]}
    for index in range(jobs["job"]["completions"]):
        run(["andiron", *jobs["job"]["template"]["spec"]["containers"][0]["args"]], JOB_COMPLETION_INDEX=str(index))
    run(["andiron", *jobs["job-merge"]["template"]["spec"]["containers"][0]["args"]])
    assert fingerprints("array") == fingerprints("corpus") == fingerprints("whole")
    print("tasks of Slurm and Kubernetes give the data of one process")


def check_units(folder):
    tool = shutil.which("systemd-analyze")
    if not tool:
        return print("skip: systemd-analyze is not here")
    for path in sorted((DEPLOY / "serving/systemd").iterdir()):
        if path.suffix in (".service", ".target"):
            text = path.read_text().replace("/usr/local/bin/andiron", "/bin/true")
            (folder / path.name).write_text(text)
    for name in ["andiron@.service", "andiron.target"]:
        ran = subprocess.run([tool, "verify", str(folder / name)], capture_output=True, text=True)
        assert ran.returncode == 0 and not ran.stderr, ran.stderr
    print("systemd takes the units")


def check_nginx(folder):
    text = (DEPLOY / "serving/nginx/andiron.conf").read_text()
    servers = re.findall(r"server (127\.0\.0\.\d:\d+)", text)
    assert servers == servers[:3] * 3, "all upstreams have the same replicas"
    port = re.search(r"--port (\d+)", (DEPLOY / "serving/systemd/andiron@.service").read_text())[1]
    assert servers[0].endswith(":" + port), (servers, port)
    tool = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    if not tool:
        return print("skip: nginx is not here")
    text = text.replace("/var/log/nginx/andiron.log", str(folder / "access.log"))
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\nclient_body_temp_path {folder}/body;\n{text}\n}}\n")
    ran = subprocess.run([tool, "-t", "-q", "-p", str(folder), "-c", str(folder / "nginx.conf")], capture_output=True, text=True)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    print("nginx takes the configuration")


def main():
    args = check_agreement(check_manifests())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_units(folder)
        check_nginx(folder)
        if pathlib.Path(program()).exists():
            check_options(program(), args, folder)
            check_prepare(program(), folder)
        else:
            print("skip: options and tasks need the program")
    print("ok")


if __name__ == "__main__":
    main()
