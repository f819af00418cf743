# Complete `python -m pipeline ...`. Every other command line of Python is completed as bash does by default.
_inpaint_foundry() {
  COMPREPLY=()
  [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == pipeline && $COMP_CWORD -ge 3 ]] || return
  local words=(pipeline) index word
  for ((index = 3; index <= COMP_CWORD; index++)); do
    word=${COMP_WORDS[index]}
    # bash takes dataset=folder for three words
    if [[ $COMP_WORDBREAKS == *=* && ($word == = || ${words[${#words[@]} - 1]} == *=) ]]; then
      words[${#words[@]} - 1]+=$word
    else
      words+=("$word")
    fi
  done
  local COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1))
  _shtab_pipeline
  word=${words[COMP_CWORD]}
  [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
  # a verb may have the name of a folder, but is none
  ((COMP_CWORD > 1)) && [[ -e ${COMPREPLY[0]} ]] && compopt -o filenames 2> /dev/null
  return 0
}
complete -o default -o bashdefault -F _inpaint_foundry python python3
