import { type Config, readConfig } from "../config.ts";
import { readDotenv } from "../dotenv.ts";

/** The settings that a server would have, started here, for commands that work without one. Throws ConfigError. */
export function readOwnSettings(): Config {
  const dotenv = readDotenv(process.cwd());
  return readConfig({ ...dotenv?.values, ...process.env }, { dotenv_file: dotenv?.file, unknown_names: [] });
}
