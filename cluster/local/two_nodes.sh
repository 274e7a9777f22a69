#!/usr/bin/env bash
# Two real Ray nodes on this machine, to try out what a cluster does: job server, token, a node that dies.
#
#   cluster/local/two_nodes.sh start     # prints what to export and how to submit
#   cluster/local/two_nodes.sh lose      # kills the worker node, as a preemption would
#   cluster/local/two_nodes.sh join      # a worker node joins again
#   cluster/local/two_nodes.sh status
#   cluster/local/two_nodes.sh stop
#
# Only processes that this script started are ever stopped, by their ids.
# Settings: RAYDC_TRY_DIR (a short path), RAYDC_TRY_PORT and the four ports above it, RAYDC_TRY_CPUS a node.
set -euo pipefail

DIR=${RAYDC_TRY_DIR:-/tmp/raydc-try-$(id -u)}
PORT=${RAYDC_TRY_PORT:-6379}
CPUS=${RAYDC_TRY_CPUS:-1}
HEAD=127.0.0.2
DASHBOARD=$((PORT + 1))
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$DIR/token
unset RAY_AUTH_TOKEN RAY_ADDRESS
# Jobs begin with `python`: the one that this `ray` belongs to.
RAY=$(command -v ray) || { echo "there is no ray here; activate the environment that has raydc" >&2; exit 2; }
PATH=$(dirname "$RAY"):$PATH
export PATH

alive() { # NAME: whether the node's own process runs
  local pid
  pid=$(cat "$DIR/$1.pid" 2>/dev/null) && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "--temp-dir=$DIR/"
}

begin() { # NAME IP OPTIONS...: a node in a session of its own; its process ends it all
  local name=$1 ip=$2
  shift 2
  rm -f "$DIR/$name.log"
  # Ray takes 127.0.0.1 for "find an address", and that would be the network's.
  setsid ray start "$@" --block --node-ip-address="$ip" --temp-dir="$DIR/$name" --num-cpus="$CPUS" \
    --object-store-memory=$((128 * 1024 * 1024)) --disable-usage-stats >"$DIR/$name.log" 2>&1 </dev/null &
  echo $! >"$DIR/$name.pid"
}

head_node() {
  begin head "$HEAD" --head --port="$PORT" --dashboard-host=127.0.0.1 --dashboard-port="$DASHBOARD" \
    --ray-client-server-port=$((PORT + 2)) --dashboard-agent-listen-port=$((PORT + 3))
}

worker_node() {
  begin worker 127.0.0.3 --address="$HEAD:$PORT" --dashboard-agent-listen-port=$((PORT + 4))
}

answers() { # IP PORT
  (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}

wait_for() { # SECONDS COMMAND...
  local left=$1
  shift
  until "$@"; do
    ((left-- > 0)) || return 1
    sleep 1
  done
}

joined() { # NAME: whether the node has registered with the head
  grep -q "Ray runtime started" "$DIR/$1.log" 2>/dev/null
}

end() { # NAME SIGNAL
  alive "$1" || { rm -f "$DIR/$1.pid"; return 0; }
  local pid
  pid=$(cat "$DIR/$1.pid")
  if [ "$2" = TERM ]; then
    kill -TERM "$pid" 2>/dev/null || true
    wait_for 20 gone "$pid" || true
  fi
  # Whoever is left of the node's own session.
  kill_session "$pid"
  rm -f "$DIR/$1.pid"
}

gone() { ! kill -0 "$1" 2>/dev/null; }

kill_session() { # SESSION: the processes that the node's process started
  local one
  for one in $(ps -o pid= -s "$1" 2>/dev/null); do kill -KILL "$one" 2>/dev/null || true; done
}

failed() { # NAME: say why a node did not start, and leave nothing
  tail -n 5 "$DIR/$1.log" >&2
  "$0" stop
  exit 1
}

case ${1:-} in
start)
  if alive head; then
    echo "it runs already; \`$0 stop\` ends it" >&2
    exit 2
  fi
  if answers "$HEAD" "$PORT" || answers 127.0.0.1 "$DASHBOARD"; then
    echo "the port $PORT or $DASHBOARD is taken; set RAYDC_TRY_PORT" >&2
    exit 2
  fi
  mkdir -p "$DIR"
  chmod 700 "$DIR"
  (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$DIR/token")
  head_node
  wait_for 60 joined head || failed head
  wait_for 60 answers 127.0.0.1 "$DASHBOARD" || failed head
  worker_node
  wait_for 60 joined worker || failed worker
  cat <<END
two nodes run; before other commands:
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$DIR/token
then
  raydc doctor --address $HEAD:$PORT --store $DIR/store
  raydc submit quickstart --address http://127.0.0.1:$DASHBOARD --store $DIR/store --out $DIR/runs/quickstart
  raydc results $DIR/runs/quickstart
END
  ;;
lose) end worker KILL ;;
join)
  alive worker && end worker TERM
  worker_node
  wait_for 60 joined worker
  ;;
status)
  for name in head worker; do
    if alive "$name"; then echo "$name runs (pid $(cat "$DIR/$name.pid"))"; else echo "$name is stopped"; fi
  done
  ;;
stop)
  end worker TERM
  end head TERM
  rm -rf "$DIR/head" "$DIR/worker" "$DIR/token"
  ;;
*)
  sed -n '2,11s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
