#!/usr/bin/env bash
# The paper's experiments, on this machine or on a Slurm cluster. experiments.csv has the runs of each.
#
#   ./benchmark.sh quick            three minutes: does every script work here?
#   ./benchmark.sh continuous       Fig. 2: SAC, SAC-NF, SAC-HPO in both coordinates, on eight tasks
#   ./benchmark.sh safe             Fig. 3: SAC-Lagrangian and safe SAC-HPO
#   ./benchmark.sh ablation         Fig. 4, Table II, and controls: no force, no leapfrog, less momentum
#   ./benchmark.sh sensitivity      Fig. 5: K and both spreads of the momentum
#   ./benchmark.sh momentum         Fig. 6: no momentum
#   ./benchmark.sh choices          what the paper leaves open and a flag decides
#   ./benchmark.sh published        SAC beside itself with settings of Tianshou's published runs
#   ./benchmark.sh collect [--unfinished]
#                                   copies what finished runs report into results/, one folder for each seed;
#                                   --unfinished: others too, as far as they got
#   ./benchmark.sh speed [--rounds N] [--sb3]
#                                   steps per second of 1, 5 and 20 seeds at once, into results/speed.csv;
#                                   --sb3: beside Stable-Baselines3, for which it makes .venv-sb3
#   ./benchmark.sh speed --cuda     the same on a GPU, into results/speed_cuda.csv
#
#   --seeds N              seeds 1 to N (5); M-N: seeds M to N
#   --labels "A B"         some of the experiment's labels only
#   --envs "A B"           other tasks than the paper's. For safe, others than HalfCheetah and Ant need --cost
#                          and --cost-limit among their flags in experiments.csv;
#                          spreads-exchanged is for HalfCheetah only, explore-as-trained for Hopper and Ant
#   --total-timesteps N    steps of each run (1000000)
#   --batch N              seeds that one process trains side by side (one; on a GPU all)
#   --workers N            processes at a time (one per core; on a GPU one)
#   --runs DIR             where runs are kept (runs/benchmark), as DIR/<task>/<label>/seed_<n>/<run>/, and
#                          those of several seeds as DIR/<task>/<label>/seeds_<m>-<n>/<run>/seed_<n>/
#   --dry-run              prints the commands and, by the last speed, the hours to expect; runs nothing
#   --slurm [OPTION...]    submits one job array instead; everything after it goes to sbatch. If only its
#                          nodes have GPUs: --batch 5 --slurm --gres=gpu:1 --cpus-per-task=6
#
# Started again, it skips what is finished, resumes what was interrupted and leaves alone what runs already.
# A seed that is in a run stays there, whatever --batch says later: that run goes on with all its seeds, and
# only seeds in no run make new batches. Experiments share the runs of a label. A run that fails does not stop
# the others; the end names it and its log.
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

steps_of() { # run: nothing if its config.json is not one of ours
    sed -nE '/.*"total_timesteps": ([0-9]{1,15})\b.*/{s//\1/p;q}' "$1/config.json"
}

newest_run() { # folder: the last run in it, nothing if there is none
    local configs=("$1"/*/config.json)
    [ ! -e "${configs[-1]}" ] || echo "${configs[-1]%/*}"
}

# Has each seed an agent of that step or later, and rows up to there? Both, as a run that is resumed cuts its
# eval.csv at its last checkpoint and leaves agents of later steps where they are.
finished() { # folder of a run or of one of its seeds, steps
    local folder folders=("$1"/seed_*/)
    [ -e "${folders[0]}" ] || folders=("$1")
    for folder in "${folders[@]}"; do
        [ "$(last_agent "$folder")" -ge "$2" ] && [ "$(last_row "$folder/eval.csv")" -ge "$2" ] || return 1
    done
}

# The command for a run's folder, in the array `command`, and its steps to go; empty if the run is finished.
command_for() { # folder steps script [argument...]
    local folder=$1 steps=$2 script=$3 run stored
    run=$(newest_run "$folder")
    command=("$python" "$script.py" "${@:4}" --total-timesteps "$steps" --runs-dir "$folder") to_go=$steps
    [ -n "$run" ] || return 0
    if finished "$run" "$steps"; then
        command=()
        return 0
    fi
    stored=$(steps_of "$run")
    [ "${stored:-0}" -le "$steps" ] || steps=$stored
    # With its flags: if they have become others since, the script says so and does not go on.
    command=("$python" "$script.py" --resume "$run" "${@:10}" --total-timesteps "$steps")
    to_go=$((steps - $(last_agent "$run"/seed_*/)))
}

# Why a run's last attempt failed: the script's own line, the last of a traceback, or whatever came last. A
# progress bar is none of these, and may stand in front of one.
reason() { # log
    tr '\r' '\n' <"$1" | LC_ALL=C awk '{ sub(/^.*[0-9]%\|[^]]*\]/, "") }
        /^\$ / { own = error = last = "" }
        /^(sac_[a-z_]+\.py|benchmark\.sh): / { own = $0 }
        /^Traceback / { inside = 1; next }
        inside && /^[^ ]/ { error = $0; inside = 0 }
        NF { last = $0 }
        END { print own ? own : error ? error : last }'
}

# The run that has one of a folder's seeds, if it is in another folder: another call began it in the meantime.
run_elsewhere() { # folder
    local config range='seeds?_([1-9][0-9]{0,8})(-([1-9][0-9]{0,8}))?'
    [[ $1 =~ /$range$ ]] || return 0
    local first=${BASH_REMATCH[1]} last=${BASH_REMATCH[3]:-${BASH_REMATCH[1]}}
    for config in "${1%/*}"/seed*_*/*/config.json; do
        [[ ${config%/*/*} != "$1" && ${config%/*/*} =~ /$range$ ]] || continue
        ((BASH_REMATCH[1] > last || ${BASH_REMATCH[3]:-${BASH_REMATCH[1]}} < first)) || echo "${config%/*}"
    done
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
    other=$(run_elsewhere "$name" | head -n 1)
    if [ -n "$other" ]; then
        say "left alone, it has seeds of $other: $name" >&2
        exit 0
    fi
    command_for "${words[@]}"
    if [ ${#command[@]} = 0 ]; then
        say "finished before: $name"
        exit 0
    fi
    say "started: $name"
    status=0
    echo "\$ ${command[*]}" 2>/dev/null >>"$name/log.txt" || true # a full disk stops the run itself
    "${command[@]}" >>"$name/log.txt" 2>&1 || status=$?
    if [ $status = 0 ]; then
        say "finished: $name"
    else
        case $status in # a run that is killed can say nothing itself
        137) echo "benchmark.sh: killed, perhaps for want of memory" >>"$name/log.txt" ;;
        143) echo "benchmark.sh: ended from outside; the same command goes on" >>"$name/log.txt" ;;
        esac
        echo $status 2>/dev/null >"$name/failed" || true
        say "failed with exit status $status: $name" >&2
        exit 1
    fi
    exit 0
fi

# ------------------------------------------------------------------------------------------------ experiments

experiment=$1
shift

if [ "$experiment" = speed ]; then
    words=() sb3="" cuda=""
    while [ $# -gt 0 ]; do
        case $1 in
        --rounds)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || stop "--rounds must be a whole number, 1 or more, not '${2:-}'"
            words+=("$1" "$2") && shift 2
            ;;
        --sb3) sb3=yes && shift ;;
        --cuda) words+=("$1") cuda=yes && shift ;;
        *) stop "speed knows --rounds, --sb3 and --cuda, not $1" ;;
        esac
    done
    [[ -z $cuda || ${#words[@]} = 1 && -z $sb3 ]] || stop "speed --cuda goes without --rounds and --sb3"
    if [ -n "$sb3" ]; then
        [ -x .venv-sb3/bin/python ] || "$python" -m venv .venv-sb3
        grep -E '^(torch|numpy|gymnasium|mujoco)' requirements.txt >.venv-sb3/requirements.txt
        .venv-sb3/bin/pip install --quiet stable-baselines3==2.9.2 -r .venv-sb3/requirements.txt
        touch .venv-sb3/complete
    fi
    [[ -n $cuda || ! -e .venv-sb3/complete ]] || words+=(--sb3-python .venv-sb3/bin/python)
    exec "$python" speed.py "${words[@]}"
fi

gpu="" # True or False once PyTorch was asked, which takes seconds
on_gpu() {
    local question='import torch; print(torch.cuda.is_available())'
    [ -n "$gpu" ] || gpu=$("$python" -c "$question" 2>/dev/null) || gpu=False
    [ "$gpu" = True ]
}

seeds=1-5 labels=() envs=() steps=1000000 batch="" workers="" runs=$here/runs/benchmark dry_run="" slurm=""
unfinished=""
while [ $# -gt 0 ]; do
    case $experiment:$1 in
    collect:--runs | collect:--dry-run | collect:--unfinished) ;;
    collect:*) stop "collect knows --runs, --unfinished and --dry-run, not $1" ;;
    *:--unfinished) stop "--unfinished is for collect" ;;
    quick:--seeds | quick:--total-timesteps | quick:--batch) stop "quick has its own $1" ;;
    esac
    case $1 in
    --seeds)
        [[ ${2:-} =~ ^([1-9][0-9]{0,8}-)?[1-9][0-9]{0,8}$ && ${2%-*} -le ${2#*-} ]] ||
            stop "--seeds must be N, for seeds 1 to N, or M-N, not '${2:-}'"
        [[ $2 = *-* ]] && seeds=$2 || seeds=1-$2
        shift 2
        ;;
    --total-timesteps | --batch | --workers)
        [[ ${2:-} =~ ^[1-9][0-9]{0,8}$ ]] ||
            stop "$1 must be a whole number from 1 to 999999999, not '${2:-}'"
        ;;&
    --labels | --envs | --runs) [[ ${2:-} = *[![:space:]]* && $2 != -* ]] || stop "$1 needs a value" ;;&
    --total-timesteps) steps=$2 && shift 2 ;;
    --batch) batch=$2 && shift 2 ;;
    --workers) workers=$2 && shift 2 ;;
    --labels) read -ra labels <<<"${2//$'\n'/ }" && shift 2 ;;
    --envs) read -ra envs <<<"${2//$'\n'/ }" && shift 2 ;;
    --runs) runs=$2 && shift 2 ;;
    --dry-run) dry_run=yes && shift ;;
    --unfinished) unfinished=yes && shift ;;
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
    declare -A run_of_seed
    # A run has its eval.csv in seed_<n>/<run>/, or one for each of its seeds in <run>/seed_<n>/.
    for csv in "$runs"/*/*/seed_*/*/eval.csv "$runs"/*/*/*/*/seed_*/eval.csv; do
        [[ ${csv#"$runs"} =~ ^(/[^/]+/[^/]+)/(.*/)?(seed_[0-9]+)/ ]] || continue # the last one has the number
        to=results${BASH_REMATCH[1]}/${BASH_REMATCH[3]} run=${csv%/*}
        [ -e "$run/config.json" ] || run=${run%/*}
        wanted=$(steps_of "$run" 2>/dev/null) && [ -n "$wanted" ] || continue # not one of ours
        if [ -z "$unfinished" ]; then
            finished "${csv%/*}" "$wanted" || continue
        fi
        [ "$(last_row "$csv")" -gt 0 ] || continue # nothing was evaluated yet
        found=yes
        [ -z "${run_of_seed[$to]:-}" ] ||
            echo "$to: two runs have it, ${run_of_seed[$to]} and $run; the later in this order counts" >&2
        run_of_seed[$to]=$run
        if [ "$(last_row "$to/eval.csv")" -gt "$(last_row "$csv")" ]; then
            echo "left as it is, being longer: $to" >&2
            continue
        fi
        if [ -z "$dry_run" ]; then
            if ! cmp -s "$csv" "$to/eval.csv"; then
                [ ! -e "$to/eval.csv" ] || echo "replaced: $to" >&2
                rm -f "$to/training.csv" # of another run
            fi
            mkdir -p "$to" && cp "$csv" "$run/config.json" "$to"
            if compgen -G "${csv%/*}/*tfevents*" >/dev/null; then
                "$python" plot.py logs "${csv%/*}" >/dev/null && cp "${csv%/*}/training.csv" "$to"
            fi
        fi
        echo "$to"
    done
    [ -n "$found" ] || stop "no $([ -n "$unfinished" ] && echo evaluated || echo finished) runs under --runs $runs"
    exit 0
fi

[ -r experiments.csv ] || stop "experiments.csv, the table of the experiments, is not here"
mapfile -t table <experiments.csv
rows=() known="" # the experiment's: "label script flag..."
for row in "${table[@]:1}"; do
    IFS=, read -r label script flags figures _ <<<"$row"
    [[ $experiment:$label != quick:$script ]] || figures=quick
    [[ " $figures " = *" $experiment"[\ -]* ]] || continue # sensitivity has three figures
    known+=" $label"
    [[ ${#labels[@]} -gt 0 && " ${labels[*]} " != *" $label "* ]] || rows+=("$label $script $flags")
done
[[ $experiment != *[!a-z-]* && -n $known ]] ||
    stop "no experiment '$experiment'; the experiments stand at the top of benchmark.sh"
for label in "${labels[@]}"; do
    [[ "$known " = *" $label "* ]] || stop "no label '$label' in $experiment, which has:$known"
done

bullet="HumanoidBulletEnv-v0 HumanoidFlagrunBulletEnv-v0 HumanoidFlagrunHarderBulletEnv-v0"
case $experiment in
continuous) tasks="Hopper-v4 Walker2d-v4 HalfCheetah-v4 Ant-v4 Humanoid-v4 $bullet" ;;
safe) tasks="HalfCheetah-v4 Ant-v4" ;;
ablation) tasks="Ant-v4 HumanoidBulletEnv-v0" ;;
sensitivity* | momentum) tasks="Hopper-v4 Walker2d-v4 Ant-v4" ;; # our choice: the paper names Hopper at most
*) tasks=HalfCheetah-v4 ;;
esac
[ ${#envs[@]} -gt 0 ] || read -ra envs <<<"$tasks"
if [ "$experiment" = quick ]; then # in a folder of its own, in which nothing is finished before
    seeds=1-1 steps=1500 runs=$runs-quick/$(date +%Y%m%d-%H%M%S)
    # The last evaluation's steps per second are those of 750 steps with updates.
    rows=("${rows[@]/%/ --learning-starts 500 --eval-frequency 750 --eval-episodes 1}")
fi
from=${seeds%-*} to=${seeds#*-}
[ -n "$batch" ] || ! on_gpu || batch=$to

# By a label's folder and a seed, the seeds of the run that has it; by a folder, the last seed in `jobs`.
declare -A run_of planned
for config in "$runs"/*/*/seed*_*/*/config.json; do
    [[ $config =~ ^(.*)/seeds?_([1-9][0-9]{0,8})(-([1-9][0-9]{0,8}))?/[^/]*/config.json$ ]] || continue
    first=${BASH_REMATCH[2]} last=${BASH_REMATCH[4]:-${BASH_REMATCH[2]}}
    for ((seed = first > from ? first : from; seed <= last && seed <= to; seed++)); do
        run_of[${BASH_REMATCH[1]} $seed]="$first $last"
    done
done
jobs=() # "folder steps script argument..."
for seed in $(seq "$from" "$to"); do # all labels of a seed before the next: an early end is worth reading
    for row in "${rows[@]}"; do
        read -r label script flags <<<"$row"
        for env in "${envs[@]}"; do
            case $label:$env in # the flags are numbers of these tasks
            spreads-exchanged:HalfCheetah-* | explore-as-trained:Hopper-* | explore-as-trained:Ant-*) ;;
            spreads-exchanged:* | explore-as-trained:*) continue ;;
            esac
            folder=$runs/${env//[\/:]/-}/$label
            [ "$seed" -gt "${planned[$folder]:-0}" ] || continue
            read -r first last <<<"${run_of[$folder $seed]:-$seed $seed}"
            while [[ -z ${run_of[$folder $seed]:-}${run_of[$folder $((last + 1))]:-} ]] &&
                ((last < to && last - seed + 1 < ${batch:-1})); do
                last=$((last + 1))
            done
            planned[$folder]=$last
            [ "$first" = "$last" ] && folder+=/seed_$first || folder+=/seeds_$first-$last
            env="--env-id $env --seed $first --num-seeds $((last - first + 1))"
            jobs+=("$folder $steps $script $env $flags")
        done
    done
done
[ ${#jobs[@]} -gt 0 ] || stop "no runs: --help says to which tasks ${labels[*]} belongs"

# --------------------------------------------------------------------------------------------------- run them

# What runs take by the last `speed`: N seeds in one process as long as N processes or, on a GPU, as the next
# number of seeds that was measured; on a task that was not measured as long as on the slowest.
expected_hours() { # on stdin a line for each run: task,script,seeds,steps
    local kind=core file=results/speed.csv one="^[^,]*,[^,]*,1,1," columns=1-3,6 # of one seed and one thread
    ! on_gpu || kind=GPU file=results/speed_cuda.csv one="" columns=1-4 # task, script, seeds, steps per second
    LC_ALL=C awk -F, -v kind=$kind -v file=$file '
        NR == FNR {
            speed[$2, $3, $1] = $4
            if (!(($2, $3) in slowest) || $4 < slowest[$2, $3]) slowest[$2, $3] = $4
            next
        }
        {
            if (kind == "core") { $4 *= $3; $3 = 1 }
            while ($3 < 1000 && !(($2, $3) in slowest)) $3++
            rate = ($2, $3, $1) in speed ? speed[$2, $3, $1] : slowest[$2, $3]
            hours = rate ? $4 / rate / 3600 : 0
            total += hours
            unknown += !rate
            line = $2 ": " (rate ? sprintf(hours < 10 ? "%.2g hours" : "%.0f hours", hours) : "unknown")
            if (!count[line]++) lines[++n] = line
        }
        END {
            for (i = 1; i <= n; i++) print "# " count[lines[i]] " x " lines[i]
            printf "# in all %.1f %s-hours by %s", total, kind, file
            print unknown ? ", and " unknown " unknown" : ""
        }' <(grep "$one" $file 2>/dev/null | cut -d, -f$columns || true; echo) -
}

if [ -n "$dry_run" ]; then
    todo=""
    for line in "${jobs[@]}"; do
        read -ra words <<<"$line"
        command_for "${words[@]}"
        [ ${#command[@]} -gt 0 ] || { echo "# finished: ${words[0]}" && continue; }
        printf '%q ' "${command[@]}" && echo
        todo+="${words[4]},${words[2]},${words[8]},$to_go"$'\n'
    done
    printf %s "$todo" | expected_hours
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

[ -n "$workers" ] || ! on_gpu || workers=1
# shellcheck disable=SC2317,SC2329  # the trap calls it
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
xargs -a "$list" -d '\n' -n 1 -P "${workers:-$(env -u OMP_NUM_THREADS nproc)}" ./benchmark.sh _run &
set +m
status=0
wait "$!" || status=1
rm -f "$list"
for line in "${jobs[@]}"; do
    read -r folder _ script _ <<<"$line"
    [ "$experiment" = quick ] && name=$script || name=$folder
    log=$folder/log.txt
    if [ -e "$folder/failed" ]; then
        why=$(cat "$folder/failed")
        echo "$name: failed with exit status ${why:-unknown}: $(reason "$log"); log: $log" >&2
    elif [ "$experiment" = quick ]; then
        run=$(newest_run "$folder")
        finished "$run" "$steps" || { echo "$name: not finished; log: $log" >&2 && continue; }
        LC_ALL=C awk -F, -v name="$name" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
            END { printf "%s: works, %d,%03d steps, return %.1f, %.0f steps/s\n", name, $1 / 1000, $1 % 1000,
                $at["return_mean"], $at["steps_per_second"] }' "$run/seed_1/eval.csv"
    elif [ $status != 0 ] && flock -n "$folder/lock" true 2>/dev/null; then # a full disk keeps no `failed`
        run=$(newest_run "$folder")
        [ -n "$run" ] && finished "$run" "$steps" || echo "$name: not finished; log: $log" >&2
    fi
done
exit $status
