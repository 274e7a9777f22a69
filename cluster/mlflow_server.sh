#!/usr/bin/env bash
# MLflow with names and passwords on this machine's loopback, for the launchers of this folder.
# Reach it through a tunnel: ray attach FILE -p 5000, or ssh -L 5000:127.0.0.1:5000 HEAD.
#
#   MLFLOW_AUTH_ADMIN_PASSWORD   in the environment, from the platform's secret store (12 characters or more)
#   RAYDC_MLFLOW_DIR             database and process id; default ~/.raydc-mlflow
#   RAYDC_MLFLOW_ARTIFACTS       folder or URI of the artifacts; default a folder beside the database
#   RAYDC_MLFLOW_PORT            default 5000
set -euo pipefail
umask 077

DIR=${RAYDC_MLFLOW_DIR:-$HOME/.raydc-mlflow}
PORT=${RAYDC_MLFLOW_PORT:-5000}
: "${MLFLOW_AUTH_ADMIN_PASSWORD:?it must come from the secret store of the platform}"
mkdir -p "$DIR"

if pid=$(cat "$DIR/pid" 2>/dev/null) && grep -qa mlflow "/proc/$pid/cmdline" 2>/dev/null; then
  echo "MLflow runs already (pid $pid)"
  exit 0
fi
cat >"$DIR/auth.ini" <<END
[mlflow]
default_permission = READ
database_uri = sqlite:///$DIR/auth.db
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
END
export MLFLOW_AUTH_CONFIG_PATH=$DIR/auth.ini
# Signs the forms of the sign-up page; a restart may change it.
MLFLOW_FLASK_SERVER_SECRET_KEY=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export MLFLOW_FLASK_SERVER_SECRET_KEY
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
setsid mlflow server --app-name basic-auth --host 127.0.0.1 --port "$PORT" --workers 1 \
  --backend-store-uri "sqlite:///$DIR/mlflow.db" \
  --artifacts-destination "${RAYDC_MLFLOW_ARTIFACTS:-$DIR/artifacts}" >>"$DIR/log" 2>&1 </dev/null &
echo $! >"$DIR/pid"
echo "MLflow starts on 127.0.0.1:$PORT (pid $(cat "$DIR/pid"), log $DIR/log)"
