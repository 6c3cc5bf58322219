# Completion of rol-maillog(1) for bash.
# shellcheck shell=bash

_rol_maillog() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local word command='' words=''
    local global='--config -v --verbose --log-format -h --help -V --version'
    local filter='--since --until --domain --sender --rcpt --client --helo --queue-id
        --message-id --outcome --kind --verdict --text'
    COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
        case $word in search | show | follow) command=$word; break ;; esac
    done
    case $prev in
        --format) words='table json csv' ;;
        --log-format) words='text json syslog' ;;
        --kind) words='mail reject abort' ;;
        --outcome) words='sent deferred bounced expired rejected discarded quarantined held aborted unknown' ;;
        --since | --until) words='today yesterday' ;;
        --config) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        --db | --domain | --sender | --rcpt | --client | --helo | --queue-id | --message-id | --verdict | --text | --limit | --cursor)
            return ;;
        *)
            case $command:$cur in
                search:-*) words="--db $filter --limit --cursor --format $global" ;;
                show:-*) words="--db --domain --format $global" ;;
                follow:-*) words="--db $filter --format $global" ;;
                :-*) words=$global ;;
                :*) words='search show follow' ;;
            esac
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -o filenames -F _rol_maillog rol-maillog
