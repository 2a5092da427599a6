-- Of each function the part in which a batch compared every item with every other. What else they do is left as it is.
DO $$
declare
	v_mend record;
	v_before text;
	v_after text;
begin
	for v_mend in
		select * from (values
			-- What was let go of one lease: from its first message on all that follow go with it.
			('psqlqueue.let_go_ordered(text,text,text,int[],text[],text[],bigint[],int[],text[],boolean[])',
			E'from unnest(v_done.queue_nos, v_done.groups, v_done.seqs, v_done.leases)\n'
			|| E'\t\t\tas gone (queue_no, ordering_group, ordering_seq, leased_at)\n',
			E'from (\n'
			|| E'\t\t\tselect gone.queue_no, gone.ordering_group, min(gone.ordering_seq) as ordering_seq, gone.leased_at\n'
			|| E'\t\t\tfrom unnest(v_done.queue_nos, v_done.groups, v_done.seqs, v_done.leases)\n'
			|| E'\t\t\t\tas gone (queue_no, ordering_group, ordering_seq, leased_at)\n'
			|| E'\t\t\twhere gone.leased_at is not null\n'
			|| E'\t\t\tgroup by gone.queue_no, gone.ordering_group, gone.leased_at\n'
			|| E'\t\t) as gone\n'),
			-- The update is made whether or not anybody reads what it returns.
			('psqlqueue.extend_ordered(int[],text[],text[],bigint[],int[])',
			E'from fenced\n\tleft join extended on extended.n = fenced.n;',
			'from fenced;'),
			('psqlqueue.extend_slots(int[],text[],text[],bigint[],int[])',
			E'from fenced\n\tleft join extended on extended.n = fenced.n;',
			'from fenced;')
		) as own (signature, wrong, right_)
	loop
		v_before := pg_get_functiondef(v_mend.signature::regprocedure);
		v_after := replace(v_before, v_mend.wrong, v_mend.right_);
		if v_after = v_before then
			raise exception 'the function % has nothing to mend: %', v_mend.signature, v_mend.wrong;
		end if;
		execute v_after;
	end loop;
end $$;
