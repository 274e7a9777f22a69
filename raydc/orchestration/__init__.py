"""Ray: placement, scheduling and execution of work. The only package that imports ray."""

import os

ENVIRONMENT = {
    # raydc does not resume from Tune's own records; these settings keep Tune light and quiet.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Ray ends a driver whose node does not start within 10 and 5 s, which a busy machine may exceed.
    "RAY_raylet_client_num_connect_attempts": "60",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
}
"""Environment variables that Ray reads on import, unless the user has set them."""

for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
