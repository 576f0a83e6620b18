  IF unfinished_direction = 'downgrade' THEN
    RAISE EXCEPTION 'the downgrade of revision {revision} is unfinished'
      USING HINT = 'Finish it with the rollback file of the revision, or undo it: syntegra-db upgrade {revision}';
  ELSIF stamp >= '{revision}' THEN
    RAISE EXCEPTION 'revision {revision} is already applied: the database is at revision %', stamp;
  ELSIF stamp IS DISTINCT FROM {before} THEN
    RAISE EXCEPTION 'revision {revision} upgrades from {before_name}, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Run the files of migrations/ in ascending order of their numbers.';
  END IF;
