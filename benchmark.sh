#!/usr/bin/env bash
# The paper's experiments as lists of commands, run on this machine or as a job array on a Slurm cluster.
#
#   ./benchmark.sh continuous       Fig. 2: SAC, SAC-NF, SAC-HPO on eight tasks
#   ./benchmark.sh safe             Fig. 3: SAC-Lagrangian and safe SAC-HPO
#   ./benchmark.sh ablation         Fig. 4, Table II, and a control: no force
#   ./benchmark.sh sensitivity      Fig. 5: K and both spreads of the momentum
#   ./benchmark.sh momentum         Fig. 6: no momentum
#   ./benchmark.sh published        SAC beside itself with learning rates of 0.001
#   ./benchmark.sh quick            a few minutes: does every script work here?
#   ./benchmark.sh collect          copies eval.csv and config.json of each seed, as far as it got, from
#                                   runs/benchmark/ into results/<task>/<label>/, where no more is there
#   python plot.py curves runs/benchmark        draws them
#
#   --seeds N                seeds 1 to N (5); M-N: seeds M to N
#   --labels "A B"           some of the experiment's labels (experiments.csv) only
#   --envs "A B"             other tasks than the paper's
#   --total-timesteps N      steps of each run (1000000)
#   --batch N                seeds that one process trains side by side (1); on a GPU all, with --workers 1
#   --workers N              processes at a time (one per core)
#   --dry-run                prints the commands, one per run, and runs nothing
#   --slurm [OPTION...]      submits them as one job array; everything after it goes to sbatch
#
# The same call goes on: each command starts its run in runs/benchmark/<task>/<label>/seed_<n> (or, of several
# seeds, seeds_<m>-<n>), resumes the run that is there, or finds it finished. Keep --batch as it was: another
# number makes other runs. A run that fails stops no other; the end names it. Its output is in <run>.log.
set -euo pipefail
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")"
export OMP_NUM_THREADS=1 MALLOC_TOP_PAD_=1000000000 # freed memory is kept: a tenth faster on a CPU

stop() { # message: one line on stderr, exit status 2
    echo "benchmark.sh: $1" >&2
    exit 2
}

python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
command -v "$python" >/dev/null || stop "no Python at '$python': make .venv as the README says, or set PYTHON"
experiment=${1:---help}
shift || true
if [[ $experiment = -* ]]; then
    sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' benchmark.sh && exit
elif [ "$experiment" = collect ]; then
    [ $# = 0 ] || stop "collect takes no options"
    declare -A run_of
    for csv in runs/benchmark/*/*/seed*/seed_*/eval.csv; do
        [ -e "$csv" ] || stop "no evaluated runs in runs/benchmark"
        IFS=/ read -r _ _ task label run seed _ <<<"$csv"
        to=results/$task/$label/$seed
        [ -z "${run_of[$to]:-}" ] || echo "$to: both ${run_of[$to]} and $run have it; the longer counts" >&2
        run_of[$to]=$run
        [ "$(cat "$to/eval.csv" 2>/dev/null | wc -l)" -le "$(wc -l <"$csv")" ] || { echo "$to: has more" >&2 && continue; }
        mkdir -p "$to" && cp "$csv" "${csv%/*/*}/config.json" "$to" && echo "$to"
    done
    exit
fi

# ------------------------------------------------------------------------------------------------- the list

seeds=1-5 total_timesteps=1000000 batch=1 workers=$(env -u OMP_NUM_THREADS nproc) labels=""
dry_run="" slurm="" runs=runs/benchmark extra=""
pybullet="HumanoidBulletEnv-v0 HumanoidFlagrunBulletEnv-v0 HumanoidFlagrunHarderBulletEnv-v0"
case $experiment in
continuous) envs="Hopper-v4 Walker2d-v4 HalfCheetah-v4 Ant-v4 Humanoid-v4 $pybullet" ;;
safe) envs="HalfCheetah-v4 Ant-v4" ;;
ablation) envs="Ant-v4 HumanoidBulletEnv-v0" ;;
sensitivity* | momentum) envs="Hopper-v4 Walker2d-v4 Ant-v4" ;; # our choice: the paper has no list
*) envs=HalfCheetah-v4 ;;
esac
if [ "$experiment" = quick ]; then # in a folder of its own, in which nothing is finished before
    seeds=1-1 total_timesteps=1500 runs=runs/quick-$(date +%Y%m%d-%H%M%S)
    extra=" --learning-starts 500 --eval-frequency 750 --eval-episodes 1"
fi
while [ $# -gt 0 ] && [ -z "$slurm" ]; do
    case $1 in
    --dry-run) dry_run=yes && shift ;;
    --slurm) slurm=yes && shift ;;
    --seeds | --labels | --envs | --total-timesteps | --batch | --workers)
        [[ ${2:-} = [!-]* ]] || stop "$1 needs a value"
        option=${1#--} && printf -v "${option//-/_}" %s "$2" && shift 2
        ;;
    *) stop "unknown option '$1'; ./benchmark.sh --help has them all" ;;
    esac
done
[[ $seeds = *-* ]] || seeds=1-$seeds
from=${seeds%-*} to=${seeds#*-}
for number in "$from" "$to" "$total_timesteps" "$batch" "$workers"; do
    [[ $number =~ ^[1-9][0-9]{0,8}$ ]] || stop "seeds, steps, --batch and --workers cannot be '$number'"
done

known="" rows=() commands=()
while IFS=, read -r label script flags figures _ default_of; do
    [[ $experiment != quick || $label != "$script" ]] || figures=quick
    [[ " $figures " = *" $experiment"[\ -]* ]] || continue # sensitivity has three figures
    known+=" $label"
    [[ -n $labels && " $labels " != *" $label "* ]] || rows+=("$label,$script,${flags:+ $flags},$default_of")
done <experiments.csv
[ -n "$known" ] || stop "no experiment '$experiment'; ./benchmark.sh --help has them all"
for label in $labels; do
    [[ "$known " = *" $label "* ]] || stop "no label '$label' in $experiment, which has:$known"
done
for ((first = from; first <= to; first += batch)); do # a seed of all labels, then the next, for an early look
    last=$((first + batch - 1 < to ? first + batch - 1 : to))
    folder=$([ "$first" = "$last" ] && echo "seed_$first" || echo "seeds_$first-$last")
    for row in "${rows[@]}"; do
        IFS=, read -r label script flags default_of <<<"$row"
        for env in $envs; do
            [[ " $default_of " = *" ${env%-v*} "* ]] && continue # there it is the label sac_hpo_continuous
            printf -v command '%q ' "$python" "$script.py" --env-id "$env" --seed "$first"
            command+="--num-seeds $((last - first + 1))$flags$extra --total-timesteps $total_timesteps"
            commands+=("$command --run-dir $runs/${env//[^[:alnum:]_.-]/-}/$label/$folder")
        done
    done
done
[ ${#commands[@]} != 0 ] || stop "no runs: --seeds $seeds, or settings that are the default of --envs '$envs'"
[ -z "$dry_run" ] || { printf '%s\n' "${commands[@]}" && exit; }
mkdir -p "$runs"
if [ -n "$slurm" ]; then # Slurm puts a job that it ended for another one back into its queue
    list=$(mktemp "$runs/$experiment-XXXXXX")
    printf '%s\n' "${commands[@]}" >"$list"
    exec sbatch --job-name="$experiment" --array="1-${#commands[@]}" --requeue --open-mode=append \
        --output="$list.%a.log" "$@" --wrap="eval \"\$(sed -n \${SLURM_ARRAY_TASK_ID}p $list)\""
fi

# -------------------------------------------------------------------------------------------- run them here

run_one() { # command, whose last word is the run's folder
    local folder=${1##* } status=0
    mkdir -p "${folder%/*}" && echo "started: $folder" && echo "\$ $1" >>"$folder.log"
    eval "$tie $1" >>"$folder.log" 2>&1 || status=$?
    [ "$status" != 0 ] || { echo "finished: $folder" && return; }
    echo "failed: $folder: exit status $status: $(tail -n 1 "$folder.log")" | tee -a "$failed" >&2 && return 1
}
interrupted() {
    trap "" INT TERM HUP
    kill -TERM -- "-$!" || true # all processes of all runs; then until the last has let go of its folder
    for _ in {1..100}; do ! kill -0 -- "-$!" 2>/dev/null || sleep 0.1; done
    echo "benchmark.sh: interrupted; the same command goes on" >&2 && exit 130
}
failed=$(mktemp) tie="setpriv --pdeathsig TERM" # its command ends when its parent does, even if killed
trap 'rm -f "$failed"' EXIT
$tie true 2>/dev/null || tie=""
export failed tie
export -f run_one
set -m # a process group of their own, which one signal ends
# shellcheck disable=SC2016,SC2086 # the words of the one, and expanded by the other bash
$tie xargs -0 -n 1 -P "$workers" $tie bash -c 'run_one "$1"' _ < <(printf '%s\0' "${commands[@]}") &
set +m
trap interrupted INT TERM HUP
wait "$!" && exit
echo "benchmark.sh: $(wc -l <"$failed") of ${#commands[@]} runs failed"$'\n'"$(cat "$failed")" >&2 && exit 1
