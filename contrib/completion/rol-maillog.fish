# Completion of rol-maillog(1) for fish.
complete -c rol-maillog -f
complete -c rol-maillog -n __fish_use_subcommand -a search -d 'find mails, rejects and broken-off sessions'
complete -c rol-maillog -n __fish_use_subcommand -a show -d 'tell the life of one mail'
complete -c rol-maillog -n __fish_use_subcommand -a follow -d 'show new and changed rows as they come'

set -l any '__fish_seen_subcommand_from search show follow'
set -l filter '__fish_seen_subcommand_from search follow'
set -l search '__fish_seen_subcommand_from search'
set -l outcomes sent deferred bounced expired rejected discarded quarantined held aborted unknown

complete -c rol-maillog -n $any -l db -r -F -d 'search a database, type:where'
complete -c rol-maillog -n $any -l domain -x -d 'what the owner of a domain may see'
complete -c rol-maillog -n $any -l format -x -a 'table json csv' -d 'format of the rows'
complete -c rol-maillog -n $filter -l since -x -a 'today yesterday' -d 'rows from a time on'
complete -c rol-maillog -n $filter -l until -x -a 'today yesterday' -d 'rows before a time'
complete -c rol-maillog -n $filter -l sender -x -d 'envelope sender'
complete -c rol-maillog -n $filter -l rcpt -x -d 'envelope recipient'
complete -c rol-maillog -n $filter -l client -x -d 'address or network of the client'
complete -c rol-maillog -n $filter -l helo -x -d 'name in HELO or EHLO'
complete -c rol-maillog -n $filter -l queue-id -x -d 'queue id on any server'
complete -c rol-maillog -n $filter -l message-id -x -d 'Message-ID header'
complete -c rol-maillog -n $filter -l outcome -x -a "$outcomes" -d 'what became of it'
complete -c rol-maillog -n $filter -l kind -x -a 'mail reject abort' -d 'kind of row'
complete -c rol-maillog -n $filter -l verdict -x -d 'verdict of Amavis'
complete -c rol-maillog -n $filter -l text -x -d 'words in subject or reason'
complete -c rol-maillog -n $search -l limit -x -d 'how many rows'
complete -c rol-maillog -n $search -l cursor -x -d 'go on after a cursor'

complete -c rol-maillog -l config -r -F -d 'read settings from a file'
complete -c rol-maillog -s v -l verbose -d 'say more'
complete -c rol-maillog -l log-format -x -a 'text json syslog' -d 'format of messages'
complete -c rol-maillog -s h -l help -d 'show the options'
complete -c rol-maillog -s V -l version -d 'show the version'
