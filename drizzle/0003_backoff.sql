-- As the one with five arguments, with the randomness of the jitter given: by the same seed always the same, so that no
-- volatile function stands in an update. The server gives the lease's random token; a hash of it tells nobody the token.
CREATE FUNCTION "psqlqueue"."backoff_seconds" (
	p_attempts int, p_min int, p_max int, p_multiplier double precision, p_jitter text, p_seed bigint
) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	select least(p_max, p_min * power(p_multiplier, least(greatest(p_attempts, 1) - 1, 30))) * case p_jitter
		when 'full' then (hashint8extended(p_seed, 1) & 2147483647) / 2147483648.0::double precision
		when 'equal' then 0.5 + (hashint8extended(p_seed, 1) & 2147483647) / 4294967296.0::double precision
		else 1
	end
$$;
