//! Microsoft Graph's JSON, in Microsoft's words.
