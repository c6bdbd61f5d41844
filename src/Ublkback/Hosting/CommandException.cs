namespace Ublkback.Hosting;

/// <summary>A command that failed; the message is the one line on standard error.</summary>
internal class CommandException(string message) : Exception(message);
