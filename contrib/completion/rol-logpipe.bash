# Completion of rol-logpipe(8) for bash.
# shellcheck shell=bash

_rol_logpipe() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local word command='' words=''
    local global='--db -f --follow --pipe --omprog --spool --listen -n --dry-run --again --year --timezone
        --unparsed --ddl --format --config -v --verbose --log-format -h --help -V --version'
    COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
        case $word in status | check | doctor) command=$word; break ;; esac
    done
    case $prev in
        --format) words='text json' ;;
        --log-format) words='text json syslog' ;;
        --spool) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
        --pipe | --config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        --db | --listen | --year | --timezone | --warning | --critical | --silence | --spool-warning) return ;;
        *)
            case $command:$cur in
                check:-*) words="--warning --critical --silence --spool-warning $global" ;;
                *:-*) words=$global ;;
                status:* | check:*) ;;
                doctor:*) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
                *) mapfile -t COMPREPLY < <(compgen -f -W 'status check doctor' -- "$cur"); return ;;
            esac
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -o filenames -F _rol_logpipe rol-logpipe
