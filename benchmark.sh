#!/usr/bin/env bash
# The paper's experiments, on this machine or on a Slurm cluster. One run is one process with one thread.
#
#   ./benchmark.sh continuous       Fig. 2: SAC, SAC-NF, SAC-HPO on eight tasks
#   ./benchmark.sh safe             Fig. 3: SAC-Lagrangian and safe SAC-HPO
#   ./benchmark.sh ablation         Fig. 4, Table II, and two controls: drift, and the base policy alone
#   ./benchmark.sh sensitivity      Fig. 5: K and both spreads of the momentum
#   ./benchmark.sh momentum         Fig. 6: no momentum
#   ./benchmark.sh choices          what the paper leaves open and a flag decides: a learned temperature, the
#                                   momentum in the soft target, forces without rounding, HalfCheetah's
#                                   spreads exchanged
#   ./benchmark.sh published        SAC beside itself with the settings of Tianshou's published runs
#   ./benchmark.sh quick            about two minutes: does every script work here?
#   ./benchmark.sh collect          copies what finished runs report into results/, one folder for each seed
#   ./benchmark.sh speed [--rounds N] [--sb3]
#                                   steps per second, all scripts but sac_lagrangian, into results/speed.csv;
#                                   --sb3: beside Stable-Baselines3, for which it makes .venv-sb3
#   ./benchmark.sh speed --cuda     on a GPU, 1, 5 and 20 seeds at once, into results/speed_cuda.csv
#
#   --seeds N              seeds 1 to N (5); M-N: seeds M to N
#   --envs "A B"           other tasks than the paper's; for safe HalfCheetah and Ant only, others need --cost
#   --total-timesteps N    steps of each run (1000000)
#   --workers N            runs at a time (one per core)
#   --runs DIR             where runs are kept (runs/benchmark): DIR/<task>/<algorithm>/seed_<n>/
#   --dry-run              prints the commands and runs nothing
#   --slurm [OPTION...]    submits one job array instead; everything after it goes to sbatch
#
# Started again, it skips what is finished, resumes what was interrupted and leaves alone what runs already.
# Runs of one label are shared between experiments (sensitivity gives each value a label, Table I's too). A
# run that fails does not stop the others; the end names it and its log.
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")") # commands are relative to it: config.json keeps them
called_from=$PWD
cd "$here"
export OMP_NUM_THREADS=1

stop() { # message: one line on stderr, exit status 2
    echo "benchmark.sh: $1" >&2
    exit 2
}

say() { # message: if nobody listens any more, because a terminal was closed, the runs go on
    echo "$1" || true
}

case ${1:-} in
"" | -h | --help)
    sed -n '2,/^set -e/{/^set -e/!s/^# \{0,1\}//p}' benchmark.sh
    exit 0
    ;;
esac

python=.venv/bin/python
if [ -n "${PYTHON:-}" ]; then
    python=$PYTHON
    [[ $python != */* ]] || python=$(cd "$called_from" && realpath -s "$python")
    command -v "$python" >/dev/null || stop "PYTHON must be a program, not '$PYTHON'"
    export PYTHON=$python
elif [ ! -x "$python" ]; then
    has_torch='from importlib.util import find_spec; raise SystemExit(find_spec("torch") is None)'
    { python=$(command -v python3) && "$python" -c "$has_torch"; } ||
        stop "no Python with PyTorch: make .venv as the README says, or set PYTHON"
fi

# ---------------------------------------------------------------------------------------------------- one run

last_agent() { # folder of a seed: the step of its last agent_<step>.pt, 0 if there is none
    printf '%s\n' /agent_0.pt "$1"/*.pt | sed -nE 's|.*/agent_([0-9]{1,15})\.pt$|\1|p' | sort -n | tail -n 1
}

last_row() { # CSV file: the step of its last evaluation, 0 if there is none
    { [ -e "$1" ] && tail -n 1 "$1" | cut -d, -f1 | grep -aE '^[0-9]{1,15}$'; } || echo 0
}

steps_of() { # run
    sed -n 's/.*"total_timesteps": \([0-9]*\).*/\1/p' "$1/config.json"
}

# Has each seed an agent of that step or later, and rows up to there? Both, as a run that is resumed cuts its
# eval.csv at its last checkpoint and leaves agents of later steps where they are.
finished() { # folder of a run or of one of its seeds, steps
    local seed seeds=("$1"/seed_*/)
    [ -e "${seeds[0]}" ] || seeds=("$1")
    for seed in "${seeds[@]}"; do
        [ "$(last_agent "$seed")" -ge "$2" ] && [ "$(last_row "$seed/eval.csv")" -ge "$2" ] || return 1
    done
}

# The command for a run's folder, in the array `command`; empty if the run is finished.
command_for() { # folder steps script [argument...]
    local folder=$1 steps=$2 script=$3 run stored
    run=$(find -H "$folder" -mindepth 2 -maxdepth 2 -name config.json -printf '%h\n' 2>/dev/null) || true
    run=$(sort <<<"$run" | tail -n 1)
    command=("$python" "$script.py" "${@:4}" --total-timesteps "$steps" --runs-dir "$folder")
    [ -n "$run" ] || return 0
    if finished "$run" "$steps"; then
        command=()
        return 0
    fi
    stored=$(steps_of "$run")
    command=("$python" "$script.py" --resume "$run" --total-timesteps $((stored > steps ? stored : steps)))
}

# Why a run's last attempt failed: the script's own line, the last of a traceback, or whatever came last.
reason() { # log
    awk '/^\$ / { own = error = "" }
        /^(sac_[a-z_]+\.py|benchmark\.sh): / { own = $0 }
        /^Traceback / { inside = 1; next }
        inside && /^[^ ]/ { error = $0; inside = 0 }
        NF { last = $0 }
        END { print own ? own : error ? error : last }' "$1"
}

if [ "${1:-}" = _run ]; then # one line of the list below; an exit status that lets xargs go on
    read -ra words <<<"$2"
    name=${words[0]}
    mkdir -p "$name"
    exec 9>"$name/lock" # the run inherits it: locked for as long as anything may write here
    locked=0
    flock -E 75 -w 5 9 2>>"$name/log.txt" || locked=$?
    if [ $locked = 75 ]; then
        say "left alone, it runs already: $name" >&2
        exit 0
    elif [ $locked != 0 ]; then
        why="on this file system two calls might run one run twice"
        echo "benchmark.sh: flock cannot lock $name/lock: $why" >>"$name/log.txt"
        echo $locked >"$name/failed"
        exit 1
    fi
    rm -f "$name/failed"
    command_for "${words[@]}"
    if [ ${#command[@]} = 0 ]; then
        say "finished before: $name"
        exit 0
    fi
    say "started: $name"
    status=0
    echo "\$ ${command[*]}" >>"$name/log.txt"
    "${command[@]}" >>"$name/log.txt" 2>&1 || status=$?
    if [ $status = 0 ]; then
        say "finished: $name"
    else
        echo $status >"$name/failed"
        say "failed with exit status $status: $name" >&2
        exit 1
    fi
    exit 0
fi

# ------------------------------------------------------------------------------------------------ experiments

experiment=$1
shift

if [ "$experiment" = speed ]; then
    words=() sb3=""
    while [ $# -gt 0 ]; do
        case $1 in
        --rounds)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || stop "--rounds must be a whole number, 1 or more, not '${2:-}'"
            words+=("$1" "$2") && shift 2
            ;;
        --sb3) sb3=yes && shift ;;
        --cuda) words+=("$1") && shift ;;
        *) stop "speed knows --rounds, --sb3 and --cuda, not $1" ;;
        esac
    done
    if [ -n "$sb3" ]; then
        [ -x .venv-sb3/bin/python ] || "$python" -m venv .venv-sb3
        grep -E '^(torch|numpy|gymnasium|mujoco)' requirements.txt >.venv-sb3/requirements.txt
        .venv-sb3/bin/pip install --quiet stable-baselines3==2.9.2 -r .venv-sb3/requirements.txt
        touch .venv-sb3/complete
    fi
    [ ! -e .venv-sb3/complete ] || words+=(--sb3-python .venv-sb3/bin/python)
    exec "$python" speed.py "${words[@]}"
fi

seeds=1-5 envs="" steps=1000000 runs=$here/runs/benchmark dry_run="" slurm=""
workers=$(env -u OMP_NUM_THREADS nproc)
while [ $# -gt 0 ]; do
    case $experiment:$1 in
    collect:--runs | collect:--dry-run) ;;
    collect:*) stop "collect knows --runs and --dry-run, not $1" ;;
    quick:--seeds | quick:--total-timesteps) stop "quick has its own $1" ;;
    esac
    case $1 in
    --seeds)
        [[ ${2:-} =~ ^([1-9][0-9]{0,8}-)?[1-9][0-9]{0,8}$ && ${2%-*} -le ${2#*-} ]] ||
            stop "--seeds must be N, for seeds 1 to N, or M-N, not '${2:-}'"
        [[ $2 = *-* ]] && seeds=$2 || seeds=1-$2
        shift 2
        ;;
    --total-timesteps | --workers)
        [[ ${2:-} =~ ^[1-9][0-9]{0,8}$ ]] ||
            stop "$1 must be a whole number from 1 to 999999999, not '${2:-}'"
        ;;&
    --envs | --runs) [[ ${2:-} = *[![:space:]]* && $2 != -* ]] || stop "$1 needs a value" ;;&
    --total-timesteps) steps=$2 && shift 2 ;;
    --workers) workers=$2 && shift 2 ;;
    --envs) envs=$2 && shift 2 ;;
    --runs) runs=$2 && shift 2 ;;
    --dry-run) dry_run=yes && shift ;;
    --slurm) slurm=yes && shift && break ;;
    *) stop "unknown option $1; the options stand at the top of benchmark.sh" ;;
    esac
done
sbatch_options=("$@")
runs=$(cd "$called_from" && realpath -m --relative-to="$here" "$runs")
[[ $runs != *[[:space:]\'\"\\]* ]] ||
    stop "--runs must not have spaces or quotes in it, seen from $here: '$runs'"

if [ "$experiment" = collect ]; then
    found=""
    # A run has its eval.csv in seed_<n>/<run>/, or one for each of its seeds in <run>/seed_<n>/.
    for csv in "$runs"/*/*/seed_*/*/eval.csv "$runs"/*/*/*/*/seed_*/eval.csv; do
        [[ ${csv#"$runs"} =~ ^(/[^/]+/[^/]+)/(.*/)?(seed_[0-9]+)/ ]] || continue # the last one has the number
        to=results${BASH_REMATCH[1]}/${BASH_REMATCH[3]} run=${csv%/*}
        [ -e "$run/config.json" ] || run=${run%/*}
        wanted=$(steps_of "$run" 2>/dev/null) && [ -n "$wanted" ] || continue # not one of ours
        finished "${csv%/*}" "$wanted" || continue
        found=yes
        if [ "$(last_row "$to/eval.csv")" -gt "$(last_row "$csv")" ]; then
            echo "left as it is, being longer: $to" >&2
            continue
        fi
        [ -n "$dry_run" ] || { mkdir -p "$to" && cp "$csv" "$run/config.json" "$to"; }
        echo "$to"
    done
    [ -n "$found" ] || stop "no finished runs under --runs $runs"
    exit 0
fi

jobs=()
job() { # algorithm's label, script, its arguments: a run for each task
    local env tasks
    read -ra tasks <<<"${envs//$'\n'/ }"
    for env in "${tasks[@]}"; do
        jobs+=("$runs/${env//[\/:]/-}/$1/seed_$seed $steps $2 --env-id $env --seed $seed ${*:3}")
    done
}

mujoco="Hopper-v4 Walker2d-v4 HalfCheetah-v4 Ant-v4 Humanoid-v4"
bullet="HumanoidBulletEnv-v0 HumanoidFlagrunBulletEnv-v0 HumanoidFlagrunHarderBulletEnv-v0"
plan() { # every run of the experiment for one seed
    case $experiment in
    continuous)
        envs=${envs:-$mujoco $bullet}
        job sac_baseline sac_baseline
        job sac_nf sac_nf
        job sac_hpo_continuous sac_hpo_continuous
        ;;
    safe)
        envs=${envs:-HalfCheetah-v4 Ant-v4}
        job sac_lagrangian sac_lagrangian
        job sac_hpo_safe sac_hpo_safe
        ;;
    ablation)
        envs=${envs:-Ant-v4 HumanoidBulletEnv-v0}
        job sac_baseline sac_baseline
        job sac_hpo_continuous sac_hpo_continuous
        job baseline-1 sac_hpo_continuous --explore conventional --train conventional
        job baseline-2 sac_hpo_continuous --explore conventional --train gaussian
        job baseline-3 sac_hpo_continuous --explore gaussian --train proposed
        job drift sac_hpo_continuous --explore drift --train drift
        job base-policy sac_hpo_continuous --explore gaussian --train gaussian
        ;;
    sensitivity) # the paper's text names Hopper only; the others are our choice
        envs=${envs:-Hopper-v4 Walker2d-v4 Ant-v4}
        for k in 1 2 3; do job leapfrog-steps-$k sac_hpo_continuous --leapfrog-steps $k; done
        for std in 0.5 1.0 1.5; do
            job momentum-std-explore-$std sac_hpo_continuous --momentum-std-explore $std
        done
        for std in 0.01 0.1 0.2; do
            job momentum-std-train-$std sac_hpo_continuous --momentum-std-train $std
        done
        ;;
    momentum) # the paper's text names no task; these are our choice
        envs=${envs:-Hopper-v4 Walker2d-v4 Ant-v4}
        job sac_hpo_continuous sac_hpo_continuous
        job no-momentum sac_hpo_continuous --momentum-std-train 0 --momentum-std-explore 0
        ;;
    choices)
        envs=${envs:-HalfCheetah-v4}
        job sac_baseline sac_baseline
        job sac_hpo_continuous sac_hpo_continuous
        job autotune sac_hpo_continuous --autotune
        job momentum-in-target sac_hpo_continuous --momentum-in-target
        job float32 sac_hpo_continuous --bfloat16-force False
        # Of HalfCheetah, whose are 1 and 0.5.
        job spreads-exchanged sac_hpo_continuous --momentum-std-train 0.5 --momentum-std-explore 1
        ;;
    published)
        envs=${envs:-HalfCheetah-v4}
        job sac_baseline sac_baseline
        job sac-tianshou sac_baseline --policy-lr 0.001 --q-lr 0.001 --learning-starts 10000
        ;;
    quick)
        # A folder of its own, in which nothing is finished before.
        envs=${envs:-HalfCheetah-v4} steps=1500 runs=$runs-quick/$(date +%Y%m%d-%H%M%S)
        for script in sac_baseline sac_nf sac_hpo_continuous sac_lagrangian sac_hpo_safe; do
            job $script $script --learning-starts 500 --eval-episodes 1
        done
        ;;
    *) stop "no experiment '$experiment'; the experiments stand at the top of benchmark.sh" ;;
    esac
}

case $experiment in quick) seeds=1-1 ;; esac
# All algorithms of a seed before the next: an early end is worth reading.
for seed in $(seq "${seeds%-*}" "${seeds#*-}"); do plan; done

# --------------------------------------------------------------------------------------------------- run them

if [ -n "$dry_run" ]; then
    for line in "${jobs[@]}"; do
        read -ra words <<<"$line"
        command_for "${words[@]}"
        [ ${#command[@]} -gt 0 ] && printf '%q ' "${command[@]}" || printf '# finished: %s' "${words[0]}"
        echo
    done
    exit 0
fi

[ -z "$slurm" ] || command -v sbatch >/dev/null || stop "--slurm needs sbatch, which is not here"
mkdir -p "$runs" 2>/dev/null || stop "--runs $runs cannot be made"
list=$(mktemp "$runs/$experiment.XXXXXX.jobs")
printf '%s\n' "${jobs[@]}" >"$list"

if [ -n "$slurm" ]; then # a job that Slurm kills and requeues resumes its run
    one="sed -n \"\$((SLURM_ARRAY_TASK_ID + 1))p\" '$list' | xargs -d '\\n' ./benchmark.sh _run"
    sbatch --job-name="$experiment" --array=0-$((${#jobs[@]} - 1)) --cpus-per-task=1 --requeue \
        --open-mode=append --output="$list.%a.log" --chdir="$here" --export=ALL "${sbatch_options[@]}" \
        --wrap="$one" || { rm -f "$list" && exit 1; }
    exit 0
fi

# shellcheck disable=SC2317  # the trap calls it
interrupted() { # by Ctrl-C, by kill, by a terminal that was closed
    trap "" INT TERM HUP
    [ -z "${!:-}" ] || kill -TERM -- "-$!" 2>/dev/null || true # not started yet, or just ended
    wait || true
    rm -f "$list"
    say "benchmark.sh: interrupted; the same command goes on" >&2
    exit 130
}
trap interrupted INT TERM HUP
set -m # a process group of their own: Ctrl-C ends these runs and nothing else
xargs -a "$list" -d '\n' -n 1 -P "$workers" ./benchmark.sh _run &
set +m
status=0
wait "$!" || status=1
rm -f "$list"
for line in "${jobs[@]}"; do
    folder=${line%% *}
    if [ -e "$folder/failed" ]; then
        log=$folder/log.txt
        echo "failed with exit status $(cat "$folder/failed"): $log: $(reason "$log")" >&2
    fi
done
exit $status
