DO $$
BEGIN
{statements}
END
$$;