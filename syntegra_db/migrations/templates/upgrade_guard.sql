  IF stamp >= '{revision}' THEN
    RAISE EXCEPTION 'revision {revision} is already applied: the database is at revision %', stamp;
  ELSIF stamp IS DISTINCT FROM {before} THEN
    RAISE EXCEPTION 'revision {revision} upgrades from {before_name}, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Run the files of migrations/ in ascending order of their numbers.';
  END IF;
