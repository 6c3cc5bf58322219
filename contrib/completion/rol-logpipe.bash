# Completion of rol-logpipe(8) for bash.
# shellcheck shell=bash

_rol_logpipe() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    case $prev in
        --db | --year | --timezone) return ;;
        --format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur"); return ;;
        --log-format) mapfile -t COMPREPLY < <(compgen -W 'text json syslog' -- "$cur"); return ;;
    esac
    case $cur in
        -*)
            mapfile -t COMPREPLY < <(compgen -W '--db -n --dry-run --again --year --timezone --unparsed --format
                --config -v --verbose --log-format -h --help -V --version' -- "$cur")
            ;;
        *) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    esac
}

complete -o filenames -F _rol_logpipe rol-logpipe
