  IF target IS NULL THEN
    RAISE EXCEPTION 'schema % has no table %', quote_ident(current_schema()), quote_ident({table})
      USING HINT = 'Create it as before, and run this again. This command prints what is missing: syntegra-db verify';
  END IF;
